"""The loop that the peak is measured with computes what it says; nothing is timed."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from graphc.backends.native import target
from graphc.backends.native.jit import load
from graphc.backends.native.peak import CHAINS, fma_loop
from graphc.view import measure
from graphc.view.measure import Peak


@pytest.mark.skipif(target.available() is not None, reason="no native backend here")
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_the_loop_multiplies_and_adds_in_every_lane(rounds: int) -> None:
    lanes = target.host().bits // 32
    library = load(fma_loop(lanes), ("fma_loop",), target.host())
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(library.address("fma_loop"))
    sink = np.zeros(CHAINS * lanes + 1, np.float32)
    call(sink.ctypes.data, rounds)
    expected = 1.0
    for _ in range(rounds):
        expected = expected * 0.5 + 1
    assert (sink[:-1] == expected).all()
    assert sink[-1] == 0  # nothing is written behind the sums


def test_the_nearer_limit_counts() -> None:
    limits = Peak(threads=1, flops=100.0, bytes=10.0)
    assert limits.seconds(flops=200, nbytes=10) == 2
    assert limits.seconds(flops=200, nbytes=30) == 3


@pytest.mark.parametrize("threads", [1, 2])
def test_rates_are_positive_numbers(threads: int) -> None:
    found = measure.measure_peak(threads, seconds=0.001)
    assert found.threads == threads
    assert 0 < found.flops < np.inf
    assert 0 < found.bytes < np.inf


def test_without_llvm_numpy_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NativeBackend, "missing", lambda self: "llvmlite is missing")
    assert measure.how() == "NumPy's matrix product"
    assert 0 < measure.flop_rate(1, 0.001) < np.inf
