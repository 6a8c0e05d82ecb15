"""Constants of a frozen plan lie at the start of a large page."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import graphc as gc
from graphc.runtime.state import LARGE, WORTH_A_PAGE, large_block

LINUX = sys.platform == "linux"


@pytest.mark.parametrize(
    "nbytes", [0, 1, WORTH_A_PAGE - 1, WORTH_A_PAGE, LARGE, LARGE + 1, 3 * LARGE - 64]
)
def test_bytes_are_zeroed_and_aligned(nbytes: int) -> None:
    memory = large_block(nbytes)
    assert memory.nbytes == nbytes
    assert not memory.any()
    memory[:] = 7  # all of it may be written
    unit = LARGE if LINUX and nbytes >= WORTH_A_PAGE else 64
    assert nbytes == 0 or memory.ctypes.data % unit == 0


@pytest.mark.needs("Linux")
def test_frozen_weights_lie_in_one() -> None:
    net = gc.Net("net")
    net.output("y", gc.affine(net.input("x", (gc.N, 300)), 300))
    trained = gc.Executor(gc.compile(net, batch=1), seed=0)
    ex = gc.freeze(trained, batch=1)
    assert ex._workspace.constants.memory.ctypes.data % LARGE == 0
    x = np.ones((1, 300), np.float32)
    np.testing.assert_array_equal(ex.forward(x=x)["y"], trained.forward(x=x)["y"])


def test_memory_that_is_not_there_is_told_as_such() -> None:
    with pytest.raises(MemoryError):
        large_block(1 << 60)
