"""Two hundred small files that ask for too much: each is read or refused at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphc.runtime import workspace
from tests.tools.fuzz_files.hostile import CASES
from tests.tools.fuzz_files.run import outcome_of

FEW = sorted(CASES)[:: len(CASES) // 20]


@pytest.fixture(autouse=True)
def memory_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poison would fill what graphc only reserves, which counts as taken by the file."""
    for name in ("block", "large_block"):
        monkeypatch.setattr(workspace, name, getattr(workspace, name).__wrapped__)


def check(name: str, folder: Path) -> None:
    kind, make = CASES[name]
    fault = outcome_of(kind, make(), folder).fault
    assert fault is None, f"{fault.what}\n{fault.trace}"


@pytest.mark.parametrize("name", FEW)
def test_some_hostile_files(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CASES.keys() - {*FEW}))
def test_hostile_files(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


def test_there_are_enough() -> None:
    assert len(CASES) >= 200
