"""Tests of what may be missing are skipped in one way, and say what is missing."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import graphc as gc
from graphc.backends import backend
from tests import conftest, extras
from tests.extras import missing, needs, skipped_where_missing

TESTS = Path(__file__).parent
OTHER_WAYS = re.compile(
    r"importorskip|\bskipif\b|\bpytest\.skip\(|SkipTest|shutil\.which|\bfind_spec\(|\.missing\(\)"
)


def files() -> list[Path]:
    """All but the mechanism, this test of it, and commands, which say what they leave out."""
    commands = [*TESTS.glob("tools/benchmarks/**/[!t]*.py"), *TESTS.rglob("__main__.py")]
    return sorted({*TESTS.rglob("*.py")} - {*commands, Path(extras.__file__), Path(__file__)})


def test_no_file_skips_on_its_own() -> None:
    found = {path.relative_to(TESTS): OTHER_WAYS.findall(path.read_text()) for path in files()}
    assert len(found) > 400
    assert not {path: ways for path, ways in found.items() if ways}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine without any program."""
    caches = missing, backend._missing
    for cache in caches:
        cache.cache_clear()
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    yield
    for cache in caches:
        cache.cache_clear()


def test_a_backend_that_is_missing_is_named(bare: None) -> None:
    """Whether a test asks for it by its mark or compiles for it."""
    net = gc.Net("net")
    net.output("y", gc.tanh(net.input("x", (gc.N, 2))))
    with pytest.raises(pytest.skip.Exception, match="there is no C compiler"):
        needs("c")
    with pytest.raises(pytest.skip.Exception, match="there is no C compiler"):  # noqa: SIM117
        with skipped_where_missing():
            gc.compile(net, batch=1, backend="c")


def test_a_mark_names_what_is_missing(bare: None) -> None:
    for name, why in (("clang", "there is no clang"), ("chromium", "no chromium here")):
        marks = [pytest.mark.needs(name).mark]
        item: Any = SimpleNamespace(iter_markers=lambda kind, marks=marks: marks)
        with pytest.raises(pytest.skip.Exception, match=why):
            next(conftest.pytest_runtest_setup(item))


@pytest.mark.parametrize("extra", extras.EXTRAS)
def test_an_extra_that_is_missing_is_named(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "missing", lambda what: f"{what} is missing")
    with pytest.raises(pytest.skip.Exception, match=f"{extras.EXTRAS[extra][0]} is missing"):  # noqa: SIM117
        with skipped_where_missing():
            raise gc.GraphError("no such thing", hint=f"pip install 'graphc-nn[{extra}]'")


def test_an_error_of_something_that_is_here_stays_one() -> None:
    with pytest.raises(gc.GraphError, match="numpy backend"), skipped_where_missing():
        raise gc.GraphError("there is no numpy backend here: it is away")
