"""Whatever is raised at whatever bytecode, a call is done, not done, or said to be broken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from graphc.backends.native.target import available
from graphc.base import usable_cores
from tests.runtime.injection.campaign import Judge, campaign, judges
from tests.runtime.injection.files import FitJudge, SaveJudge
from tests.runtime.injection.frozen import FrozenJudge
from tests.runtime.injection.judging import CallJudge
from tests.runtime.injection.subjects import COMPILED, SUBJECTS

BACKENDS = ["numpy", "native", "threads"] if available() is None else ["numpy"]
SAMPLED = {
    "step": 61,
    "step, updating": 67,
    "step of shards": 401,
    "forward(train)": 97,
    "backward": 23,
    "update": 41,
    "parameters[name] =": 37,
    "state =": 401,
}
"""One bytecode in how many is taken in a default run."""


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans of two threads have them on any machine."""
    monkeypatch.setattr(usable_cores, "cores", lambda: 2)


def assert_right(judge: Judge, every: int, offset: int = 0) -> None:
    tally = campaign(judge, every=every, offset=offset)
    assert not tally.wrong
    assert sum(tally.counts.values()) > 0


@pytest.mark.one_in(2)
@pytest.mark.parametrize("where", BACKENDS[:2])
def test_some_bytecodes_of_calls(where: str) -> None:
    for subject in SUBJECTS:
        if subject.name in SAMPLED:
            assert_right(CallJudge(subject, where), SAMPLED[subject.name], offset=11)


def test_some_bytecodes_of_files(tmp_path: Path) -> None:
    assert_right(FrozenJudge("numpy"), 997)
    assert_right(SaveJudge("numpy", tmp_path), 997)


def every_call() -> Iterator[tuple[str, str]]:
    for where in BACKENDS:
        for judge in [*(s.name for s in SUBJECTS), *(j.name for j in (FrozenJudge, SaveJudge))]:
            yield where, judge


@pytest.mark.slow
@pytest.mark.parametrize(("where", "name"), list(every_call()))
def test_many_bytecodes_of_every_call(where: str, name: str, tmp_path: Path) -> None:
    for judge in judges(where, tmp_path, name):
        if judge.name == name:
            assert_right(judge, 30)


@pytest.mark.slow
@pytest.mark.skipif(available() is not None, reason="no native code here")
def test_bytecodes_of_a_compilation() -> None:
    assert_right(CallJudge(COMPILED, "native"), 1000)


@pytest.mark.slow
@pytest.mark.parametrize("where", BACKENDS)
def test_bytecodes_of_a_fit_with_checkpoints(where: str, tmp_path: Path) -> None:
    assert_right(FitJudge(where, tmp_path), 150)


@pytest.mark.campaign
@pytest.mark.parametrize("where", BACKENDS)
def test_every_bytecode_of_every_call(where: str, tmp_path: Path) -> None:
    for judge in judges(where, tmp_path):
        assert_right(judge, 1)
