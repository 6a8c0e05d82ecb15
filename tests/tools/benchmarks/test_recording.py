"""Recording costs little.  Run with `pytest -m bench -n 0 tests/tools/benchmarks`."""

from __future__ import annotations

import pytest

from tests.tools.benchmarks.recording import measure


@pytest.mark.bench
@pytest.mark.parametrize("workload", ["mnist", "seed"])
def test_recording_adds_less_than_two_percent(workload: str) -> None:
    assert measure(workload).added < 0.02
