"""Loops in Python: the calls of a step are bound once, to slots that hold the slices of a step.

So run all loops of NumPy, and on other backends those with a reference rule in their steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod

import numpy as np

from graphc.backends.backend import Backend, Call, Memory, View, in_order
from graphc.backends.layout import columns_of
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType, numpy_dtype, shape_at
from graphc.kernels.program import Program
from graphc.kernels.scan import ScanKernel
from graphc.ops.source import Constant

Bind = Callable[[Program, int, View], list[Call]]
"""Binds a program to arrays for a number of rows."""


def bind_loop(scan: ScanKernel, n: int, view: View, bind: Bind) -> Call:
    """Return the call that runs all steps of a loop."""
    return (_AtOnce if scan.at_once else _Loop)(scan, n, view, bind).run


def bind_compiled_loop(made: Backend, scan: ScanKernel, n: int, view: View, memory: Memory) -> Call:
    """Return the call that runs all steps of a loop, each by the code of another backend."""

    def bind(program: Program, rows: int, slot: View) -> list[Call]:
        own = _StepMemory(made, scan, view(scan.workspace), slot, memory)
        return made.bind(program, frozenset(), own).calls(rows, slot)[0]

    return bind_loop(scan, n, view, bind)


class _StepMemory:
    """The memory that the program of a step runs on: the workspace of its loop."""

    written: Sequence[Array] = ()
    feed_bytes = 0

    def __init__(
        self, made: Backend, scan: ScanKernel, workspace: Array, slot: View, memory: Memory
    ) -> None:
        self.arena, self.scratch, self.threads = workspace, memory.scratch, memory.threads
        self._slot, orders = slot, made.orders(scan.program)
        self._ordered: dict[str, Array] = {}
        """The constants that code does not read in the order declared, by key."""
        for buffer in scan.program.constants.values():
            if buffer.key in orders:
                self._ordered[buffer.key] = in_order(orders[buffer.key], slot(buffer.name))

    def view(self, program: Program, name: str, n: int) -> Array:
        """Return the array of a buffer, of the rows that the steps are bound for."""
        buffer = program.buffers[name]
        ordered = self._ordered.get(buffer.key) if buffer.space == "constant" else None
        return self._slot(name) if ordered is None else ordered


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
        return raw.view(numpy_dtype(type.dtype)).reshape(shape_at(type.shape, n))


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
    """A loop on its memory: the calls of a step, and the slots and sequences that it copies."""

    def __init__(self, scan: ScanKernel, n: int, view: View, bind: Bind) -> None:
        super().__init__(scan, n, view, bind)
        slot = partial(self.view, n=n)
        self.calls = bind(scan.program, n, slot)
        carried = scan.carried
        self.before = [(slot(name), self._all(name, of)) for name, of in scan.sequences.items()]
        self.kept = [(slot(x.feed), self._all(x.feed, x.before)) for x in carried if x.before]
        stacked = {**scan.stacked, **{x.result: x.stacked for x in carried if x.stacked}}
        self.after = [(slot(name), self._all(name, of)) for name, of in stacked.items()]
        self.initial = [(slot(x.feed), self._outer(x.feed, x.initial)) for x in carried]
        self.handed = [(slot(x.feed), slot(x.result)) for x in carried]
        lasts = ((slot(x.feed), self._outer(x.feed, x.last)) for x in carried)
        self.last = [(array, last) for array, last in lasts if last is not None]
        self.number = slot(scan.number) if scan.number else None

    def _own(self, root: str, n: int) -> Array:
        if root not in self.scan.slots:
            return super()._own(root, n)
        return self.typed(self.scan.slots[root], self.scan.program.buffers[root].type, n)

    def _outer(self, name: str, outer: str) -> Array | None:
        """Return an operand or result of the loop in the shape of a buffer of the step."""
        return self.outside(outer).reshape(self.view(name, self.n).shape) if outer else None

    def _all(self, name: str, outer: str) -> Array:
        """Return the sequence that a buffer of the step is a slice of."""
        return self.outside(outer).reshape(self.scan.steps, *self.view(name, self.n).shape)

    def run(self) -> None:
        """Run all steps, and set to 0 what no step writes."""
        count = self.scan.count(self.outside)
        for slot, initial in self.initial:
            slot[...] = 0 if initial is None else initial
        for _, sequence in (*self.after, *self.kept):
            sequence[count:] = 0
        for t in reversed(range(count)) if self.scan.reverse else range(count):
            self._step(t)
        for slot, last in self.last:
            np.copyto(last, slot)

    def _step(self, t: int) -> None:
        if self.number is not None:
            self.number[...] = t
        for slot, sequence in self.before:
            np.copyto(slot, sequence[t])
        for slot, sequence in self.kept:
            sequence[t] = slot
        for call in self.calls:
            call()
        for slot, sequence in self.after:
            sequence[t] = slot
        for feed, result in self.handed:
            np.copyto(feed, result)
