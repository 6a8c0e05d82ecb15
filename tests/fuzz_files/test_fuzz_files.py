"""Two thousand changed files of every kind: read or refused, and nothing else."""

from __future__ import annotations

import pytest

from tests.fuzz_files.run import run
from tests.fuzz_files.seeds import seeds


def test_some_files() -> None:
    found = run(2000)
    assert not found.faults, found.faults[0].what + found.faults[0].trace
    assert found.runs == 2000
    kinds = {seed.kind for seed in seeds()}
    assert {*found.read} | {*found.refused} == kinds
    assert found.read["model"] > 20, "some changes leave a file whole"
    assert found.refused["model"] > 500


@pytest.mark.slow
def test_many_files() -> None:
    found = run(50_000, first=10_000_000)
    assert not found.faults, found.faults[0].what + found.faults[0].trace
