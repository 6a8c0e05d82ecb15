"""Finds what kernels leave unwritten: memory is poisoned before they run."""

from __future__ import annotations

from typing import Literal

import numpy as np

from graphc.ir.op import Array
from graphc.runtime.workspace import poisoned

Bytes = tuple[str, int, int]
"""The memory of a buffer: the block, and its first byte and end in it."""
Side = Literal["lowering", "backend"]


def overlap(one: Bytes, other: Bytes) -> bool:
    """Return whether two buffers share bytes."""
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


def first_unwritten(
    exact: Array, interpreted: Array | None, computed: Array
) -> tuple[Side, str] | None:
    """Return the layer that left poison which is not the right value, and where; None if none did.

    `interpreted` is the result of the interpreter of kernels, `computed` that of the backend.
    """
    sides: dict[Side, Array | None] = {"lowering": interpreted, "backend": computed}
    for side, array in sides.items():
        if array is None or array.size != exact.size:
            continue
        at = np.argwhere(poisoned(array) & ~poisoned(exact).reshape(array.shape))
        if len(at):
            return side, f" at {at[0].tolist()}" if array.ndim else ""
    return None
