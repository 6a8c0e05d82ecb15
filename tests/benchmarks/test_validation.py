"""What validating the passes of the digits network costs, beside compiling it.

Run with `pytest -m bench -n 0 tests/benchmarks`.
"""

from __future__ import annotations

from time import perf_counter

import pytest

import graphc as gc
from tests.benchmarks.digits import digits

pytestmark = pytest.mark.bench


def seconds(validate: bool) -> float:
    """The best of five compilations."""
    net, found = digits(), []
    for _ in range(5):
        start = perf_counter()
        gc.compile(net, batch=128, optimizer=gc.SGD(lr=0.1, momentum=0.9), validate=validate)
        found.append(perf_counter() - start)
    return min(found)


def test_validation_takes_less_than_two_seconds() -> None:
    plain, validated = seconds(False), seconds(True)
    print(f"compile {plain:.3f} s, with validation {validated:.3f} s")
    assert validated < 2.0
    assert validated / plain < 60
