"""What validating the digits network costs, beside compiling it and ten steps.

Run with `pytest -m bench -n 0 tests/tools/benchmarks`.
"""

from __future__ import annotations

from pathlib import Path
from time import process_time

import numpy as np
import pytest

import graphc as gc
from graphc.backends.native import libraries
from tests.tools.benchmarks.digits import digits

pytestmark = pytest.mark.bench


def seconds(validate: bool, backend: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> float:
    """The least processor time of three compilations with ten steps, each from an empty cache."""
    net, found = digits(), []
    x, y = np.random.default_rng(0).random((128, 64)), np.arange(128) % 10
    for number in range(3):
        monkeypatch.setenv("GRAPHC_CACHE", str(folder / f"{validate}{number}"))
        libraries._loaded.clear()
        libraries._recent.clear()
        start = process_time()
        optimizer = gc.SGD(lr=0.1, momentum=0.9)
        plan = gc.compile(net, batch=128, optimizer=optimizer, backend=backend, validate=validate)
        ex = gc.Executor(plan)
        for _ in range(10):
            ex.step(x=x, y=y)
        found.append(process_time() - start)
    return min(found)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_validation_and_ten_steps(
    backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Native code is compiled for all programs, not only for the step; other load is left out."""
    plain, validated = (seconds(v, backend, monkeypatch, tmp_path) for v in (False, True))
    print(f"{backend}: {plain:.3f} s, with validation {validated:.3f} s: {validated / plain:.1f}x")
    if backend == "native":
        assert validated / plain < 3
    assert validated < 10
