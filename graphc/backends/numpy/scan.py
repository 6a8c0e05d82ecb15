"""Loops in NumPy: the calls of a step are bound once, to slots that hold the slices of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from graphc.backends.backend import Call, View
from graphc.backends.layout import columns_of
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType, shape_at
from graphc.kernels.program import Program
from graphc.kernels.scan import ScanKernel
from graphc.ops.source import Constant

Bind = Callable[[Program, int, View], list[Call]]
"""Binds a program to arrays for a number of rows."""


def bind_scan(scan: ScanKernel, n: int, view: View, bind: Bind) -> Call:
    """Return the call that runs all steps of a loop."""
    return _Loop(scan, n, view, bind).run


class _Loop:
    """A loop on its memory."""

    def __init__(self, scan: ScanKernel, n: int, view: View, bind: Bind) -> None:
        self.scan, self.n, self.outside = scan, n, view
        self.memory = view(scan.workspace)
        self.calls = bind(scan.program, n, self.view)
        self.before = list(self._copies_in())
        self.after = list(self._copies_out())

    def view(self, name: str) -> Array:
        """Return the array of a buffer of the step's program."""
        scan, buffer = self.scan, self.scan.program.buffers[name]
        root = scan.program.aliases.get(name, name)
        if root in scan.whole:
            found = self.outside(scan.whole[root])
        elif root in scan.slots:
            found = self._typed(scan.slots[root], scan.program.buffers[root].type)
        elif buffer.space == "constant":
            op = scan.program.graph[buffer.key].op
            assert isinstance(op, Constant), "constants are nodes"
            found = op.array()
        else:
            found = self._typed(buffer.offset, scan.program.buffers[root].type)
        shape = shape_at(buffer.type.shape, self.n)
        return columns_of(found, buffer, shape) if buffer.pitch else found.reshape(shape)

    def _typed(self, offset: int, type: TensorType) -> Array:
        nbytes = type.nbytes(self.n)
        raw = self.memory[offset : offset + nbytes]
        return raw.view(type.dtype).reshape(shape_at(type.shape, self.n))

    def _copies_in(self) -> Iterator[tuple[Array, Array]]:
        """Yield the slot of each sequence, and the sequence."""
        for name, outer in self.scan.sequences.items():
            yield self.view(name), self.outside(outer)

    def _copies_out(self) -> Iterator[tuple[Array, Array]]:
        """Yield the stacked results, and the slots of their slices."""
        stacked = dict(self.scan.stacked)
        stacked.update({one.result: one.stacked for one in self.scan.carried if one.stacked})
        for name, outer in stacked.items():
            yield self.outside(outer), self.view(name)

    def run(self) -> None:
        """Run all steps."""
        scan = self.scan
        count = scan.count(self.outside)
        self._start(count)
        number = self.view(scan.number) if scan.number else None
        for t in reversed(range(count)) if scan.reverse else range(count):
            if number is not None:
                number[...] = t
            for slot, sequence in self.before:
                np.copyto(slot, sequence[t])
            for one in scan.carried:
                if one.before:
                    self.outside(one.before)[t] = self.view(one.feed)
            for call in self.calls:
                call()
            for sequence, slot in self.after:
                sequence[t] = slot
            for one in scan.carried:
                np.copyto(self.view(one.feed), self.view(one.result))
        for one in scan.carried:
            if one.last:
                np.copyto(self.outside(one.last), self.view(one.feed))

    def _start(self, count: int) -> None:
        """Fill the carried slots, and set to 0 what no step will write."""
        for one in self.scan.carried:
            self.view(one.feed)[...] = self.outside(one.initial) if one.initial else 0
        for outer in self.scan.sequences_written():
            self.outside(outer)[count:] = 0
