"""Poisons what kernels are to write, and finds what they leave unwritten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from graphc.backends.backend import Part
from graphc.ir.op import Array
from graphc.runtime.workspace import poison, poisoned

if TYPE_CHECKING:
    from graphc.check.validation.programs import Run

Bytes = tuple[str, int, int]
"""The memory of a buffer: the block, and its first byte and end in it."""
Side = Literal["lowering", "backend"]


def overlap(one: Bytes, other: Bytes) -> bool:
    """Return whether two buffers share bytes."""
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


def poison_results(run: Run, part: Part) -> None:
    """Poison what a part is to write, except for what it writes in the place of an operand."""
    made: set[str] = set()
    read: list[Bytes] = []
    for number in part.starts:
        instr = run.program.instrs[number]
        read += [run.range_of(name) for name in instr.ins if run.root(name) not in made]
        made.update(instr.outs)
    for name in made:
        if not any(overlap(run.range_of(name), other) for other in read):
            poison(run.view(name))


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
