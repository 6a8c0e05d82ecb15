"""The cost of verifying a plan: microseconds a node, beside those of compiling it.

Run with `pytest -m bench -n 0 tests/tools/benchmarks`.
"""

from __future__ import annotations

from time import process_time

import pytest

from tests.tools.benchmarks.compile_scale import compiled
from tests.tools.benchmarks.verify import measure

pytestmark = pytest.mark.bench


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_a_proof_takes_at_most_a_millisecond_for_a_thousand_nodes(backend: str) -> None:
    nodes, _, proof = measure(840, backend)
    assert proof / nodes <= 1e-6


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_certificate_and_proof_take_little_of_the_time_to_compile(backend: str) -> None:
    start = process_time()
    compiled(840, backend)
    compile = process_time() - start
    _, export, proof = measure(840, backend)
    assert export + proof < 0.2 * compile
