"""The numpy plan's step against hand-written NumPy.

Run with `pytest -m bench -n 0 tests/tools/benchmarks`.
"""

from __future__ import annotations

import pytest

from tests.tools.benchmarks.hand_written import LR, W
from tests.tools.benchmarks.step import check_losses, measure

pytestmark = pytest.mark.bench


@pytest.mark.parametrize("workload", ["tiny", "mnist"])
def test_a_step_is_within_15_percent_of_hand_written_buffers(workload: str) -> None:
    assert measure(workload, rounds=41)["graphc/buffers"] <= 1.15


@pytest.mark.parametrize("workload", ["tiny", "mnist", "seed", "deep"])
def test_a_step_is_faster_than_allocating_layers(workload: str) -> None:
    assert check_losses(workload, W[workload].get("lr", LR)) < 1e-4
    assert measure(workload, rounds=21)["graphc/layers"] < 1
