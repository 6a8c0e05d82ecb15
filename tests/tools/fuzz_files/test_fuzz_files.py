"""Changed files of every kind: read or refused, and nothing else."""

from __future__ import annotations

import pytest

from tests.tools.fuzz_files.run import run
from tests.tools.fuzz_files.seeds import seeds


def test_some_files() -> None:
    found = run(500)
    assert not found.faults, found.faults[0].what + found.faults[0].trace
    assert found.runs == 500
    kinds = {seed.kind for seed in seeds()}
    assert {*found.read} | {*found.refused} == kinds
    assert found.read["model"] > 5, "some changes leave a file whole"
    assert found.refused["model"] > 100


@pytest.mark.slow
def test_some_changed_structures() -> None:
    found = run(150, structured=True)
    assert not found.faults, found.faults[0].what + found.faults[0].trace
    assert {"model", "onnx"} == {*found.read} == {*found.refused}


@pytest.mark.slow
def test_many_changed_structures() -> None:
    found = run(4_000, first=20_000_000, structured=True)
    assert not found.faults, found.faults[0].what + found.faults[0].trace


@pytest.mark.slow
def test_many_files() -> None:
    found = run(20_000, first=10_000_000)
    assert not found.faults, found.faults[0].what + found.faults[0].trace
