"""Loops in NumPy: the calls of a step are bound once, to slots that hold the slices of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import prod

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
    return (_AtOnce if scan.at_once else _Loop)(scan, n, view, bind).run


class _Steps:
    """The memory of a loop's steps."""

    def __init__(self, scan: ScanKernel, n: int, view: View, bind: Bind) -> None:
        self.scan, self.n, self.outside, self.bind = scan, n, view, bind
        self.memory = view(scan.workspace)

    def view(self, name: str, n: int) -> Array:
        """Return the array of a buffer of the step's program, for `n` rows."""
        program, buffer = self.scan.program, self.scan.program.buffers[name]
        root = program.aliases.get(name, name)
        if root in self.scan.whole:
            found = self.outside(self.scan.whole[root])
        elif buffer.space == "constant":
            op = program.graph[buffer.key].op
            assert isinstance(op, Constant), "constants are nodes"
            found = op.array()
        else:
            found = self._own(root, n)
        shape = shape_at(buffer.type.shape, n)
        return columns_of(found, buffer, shape) if buffer.pitch else found.reshape(shape)

    def _own(self, root: str, n: int) -> Array:
        """Return the array of a buffer that is neither a whole operand nor a constant."""
        buffer = self.scan.program.buffers[root]
        return self.typed(buffer.offset, buffer.type, n)

    def typed(self, offset: int, type: TensorType, n: int) -> Array:
        """Return an array in the workspace."""
        raw = self.memory[offset : offset + type.nbytes(n)]
        return raw.view(type.dtype).reshape(shape_at(type.shape, n))


class _AtOnce(_Steps):
    """A loop whose steps run as one, with the rows of all steps."""

    def __init__(self, scan: ScanKernel, n: int, view: View, bind: Bind) -> None:
        super().__init__(scan, n, view, bind)
        self.known: dict[int, list[Call]] = {}

    def run(self) -> None:
        """Run all steps."""
        rows = self.scan.count(self.outside) * self.n
        if rows not in self.known:
            self.known = {rows: self.bind(self.scan.program, rows, partial(self.view, n=rows))}
        for outer in self.scan.stacked.values():
            self.outside(outer)[...] = 0
        for call in self.known[rows]:
            call()

    def _own(self, root: str, n: int) -> Array:
        outer = self.scan.sequences.get(root) or self.scan.stacked.get(root)
        if outer is None:
            return super()._own(root, n)
        array = self.outside(outer)
        shape = shape_at(self.scan.program.buffers[root].type.shape, n)
        return array.reshape(-1)[: prod(shape)].reshape(shape)


class _Loop(_Steps):
    """A loop on its memory."""

    def __init__(self, scan: ScanKernel, n: int, view: View, bind: Bind) -> None:
        super().__init__(scan, n, view, bind)
        self.slice = partial(self.view, n=n)
        self.calls = bind(scan.program, n, self.slice)
        self.before = list(self._copies_in())
        self.after = list(self._copies_out())
        kept = (one for one in scan.carried if one.before)
        self.kept = [(view(one.before), self.slice(one.feed)) for one in kept]

    def _own(self, root: str, n: int) -> Array:
        if root not in self.scan.slots:
            return super()._own(root, n)
        return self.typed(self.scan.slots[root], self.scan.program.buffers[root].type, n)

    def _copies_in(self) -> Iterator[tuple[Array, Array]]:
        """Yield the slot of each sequence, and the sequence."""
        for name, outer in self.scan.sequences.items():
            slot = self.slice(name)
            yield slot, self.outside(outer).reshape(self.scan.steps, *slot.shape)

    def _copies_out(self) -> Iterator[tuple[Array, Array]]:
        """Yield the stacked results, and the slots of their slices."""
        stacked = dict(self.scan.stacked)
        stacked.update({one.result: one.stacked for one in self.scan.carried if one.stacked})
        for name, outer in stacked.items():
            yield self.outside(outer), self.slice(name)

    def run(self) -> None:
        """Run all steps."""
        count = self.scan.count(self.outside)
        self._start(count)
        for t in reversed(range(count)) if self.scan.reverse else range(count):
            self._step(t)
        for one in self.scan.carried:
            if one.last:
                np.copyto(self.outside(one.last), self.slice(one.feed))

    def _step(self, t: int) -> None:
        if self.scan.number:
            self.slice(self.scan.number)[...] = t
        for slot, sequence in self.before:
            np.copyto(slot, sequence[t])
        for sequence, slot in self.kept:
            sequence[t] = slot
        for call in self.calls:
            call()
        for sequence, slot in self.after:
            sequence[t] = slot
        for one in self.scan.carried:
            np.copyto(self.slice(one.feed), self.slice(one.result))

    def _start(self, count: int) -> None:
        """Fill the carried slots, and set to 0 what no step will write."""
        for one in self.scan.carried:
            slot = self.slice(one.feed)
            slot[...] = self.outside(one.initial).reshape(slot.shape) if one.initial else 0
        for outer in self.scan.sequences_written():
            self.outside(outer)[count:] = 0
