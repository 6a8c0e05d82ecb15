"""Whatever is raised at whatever bytecode, a call is done, not done, or said to be broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphc.base import usable_cores
from tests.extras import where
from tests.runtime.injection.campaign import Judge, campaign, judges
from tests.runtime.injection.files import FitJudge, SaveJudge
from tests.runtime.injection.frozen import FrozenJudge
from tests.runtime.injection.judging import CallJudge
from tests.runtime.injection.subjects import COMPILED, SUBJECTS

BACKENDS = ["numpy", where("native"), where("native", "threads")]
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
@pytest.mark.parametrize("backend", BACKENDS[:2])
def test_some_bytecodes_of_calls(backend: str) -> None:
    for subject in SUBJECTS:
        if subject.name in SAMPLED:
            assert_right(CallJudge(subject, backend), SAMPLED[subject.name], offset=11)


def test_some_bytecodes_of_files(tmp_path: Path) -> None:
    assert_right(FrozenJudge("numpy"), 997)
    assert_right(SaveJudge("numpy", tmp_path), 997)


EVERY_CALL = [*(s.name for s in SUBJECTS), *(j.name for j in (FrozenJudge, SaveJudge))]


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_CALL)
@pytest.mark.parametrize("backend", BACKENDS)
def test_many_bytecodes_of_every_call(backend: str, name: str, tmp_path: Path) -> None:
    for judge in judges(backend, tmp_path, name):
        if judge.name == name:
            assert_right(judge, 30)


@pytest.mark.slow
@pytest.mark.needs("native")
def test_bytecodes_of_a_compilation() -> None:
    assert_right(CallJudge(COMPILED, "native"), 1000)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_bytecodes_of_a_fit_with_checkpoints(backend: str, tmp_path: Path) -> None:
    assert_right(FitJudge(backend, tmp_path), 150)


@pytest.mark.campaign
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_bytecode_of_every_call(backend: str, tmp_path: Path) -> None:
    for judge in judges(backend, tmp_path):
        assert_right(judge, 1)
