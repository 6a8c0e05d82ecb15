"""Loops over rows with an index in several dimensions, for kernels that gather elements."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence
from dataclasses import replace
from math import prod

from graphc.backends.native.elements import Elements, Known, Place
from graphc.backends.native.ir import Value
from graphc.backends.native.phases import phases
from graphc.backends.native.ranges import BLOCK, Masks, blocks, in_thread, own
from graphc.backends.native.spots import Spots
from graphc.ir.tensor_type import Batch, Dim
from graphc.kernels.kernel import CHUNK, LANES, Loop

ROWS_TOGETHER = 8
"""The rows shorter than a vector that are read before the first of them is written: the memory that
is read may be updated in place, and a load waits for a store just before it that it partly
overlaps."""


def fetches(kernel: Loop) -> bool:
    """Return whether a kernel gathers elements."""
    return any(step.op == "fetch" for step in kernel.body.steps)


def emit_places(elements: Elements, kernel: Loop, known: Known) -> None:
    """Emit the kernel row by row, and count the index of each of its dimensions."""
    _Places(elements, kernel, known).emit()


class _Places:
    def __init__(self, elements: Elements, kernel: Loop, known: Known) -> None:
        self.elements, self.kernel, self.known = elements, kernel, known
        self.f = elements.function
        (self.phase,) = phases(kernel.body)
        assert isinstance(kernel.columns, int), "columns are counted"
        self.columns = kernel.columns
        self.steps = [s for s in kernel.body.steps if s.op == "fetch"]
        self.shape = (_divided(kernel.rows, prod(kernel.places)), *kernel.places)
        loads = any(s.op == "load" and s.span == "each" for s in kernel.body.steps)
        self.together = ROWS_TOGETHER if loads and self.columns < LANES else 1

    def emit(self) -> None:
        """Emit the loop over the rows of a thread, and in it the loop over columns."""
        in_thread(self.f, self.kernel.split, self._all)

    def _all(self) -> None:
        split = self.kernel.split
        start, end = own(self.f, self.elements.rows, CHUNK, split == "rows")
        self.bounds = own(self.f, self.columns, BLOCK, split == "columns")
        counted = self.f.loop(
            start,
            self._even(start, end),
            self.together,
            lambda row, indices: self._rows(row, indices, self.together),
            [("i64", index) for index in self._indices(str(start))],
        )
        if self.together > 1:
            self.f.loop(
                self._even(start, end),
                end,
                1,
                lambda row, indices: self._rows(row, indices, 1),
                [("i64", index) for index in counted],
            )

    def _indices(self, row: Value) -> list[Value]:
        """Return the index of a row in each dimension."""
        found: list[Value] = []
        for size in reversed(self.kernel.places):
            found.append(self.f.remainder(row, size))
            row = self.f.quotient(row, size)
        return [row, *reversed(found)]

    def _even(self, start: Value | int, end: Value | int) -> Value:
        """Return the end of the rows that are computed several at once."""
        count = self.f.sub(end, start)
        return self.f.add(start, self.f.even(count, self.together))

    def _rows(self, first: Value, indices: list[Value], count: int) -> list[Value]:
        rows: list[tuple[Place, Known]] = []
        for i in range(count):
            rows.append(self._row(self.f.add(first, i), indices))
            indices = self._next(indices)

        def visit(column: Value | int, masks: Masks, _: list[Value]) -> list[Value]:
            self._block(rows, column, masks)
            return []

        blocks(self.elements.vectors, *self.bounds, visit)
        return indices

    def _row(self, number: Value, indices: list[Value]) -> tuple[Place, Known]:
        """Return the place of a row and of its gathered elements, and its known values."""
        elements = self.elements
        known: Known = ChainMap({}, dict(self.known))
        spots = Spots(elements.vectors, elements.buffers, self.shape, self.columns, indices)
        place = Place(number, elements.lines(number), spots=spots)
        elements.evaluate(elements.of_span(self.phase.steps, "row"), known, place)
        spots.prepare(self.steps, known)
        return place, known

    def _block(
        self, rows: Sequence[tuple[Place, Known]], column: Value | int, masks: Masks
    ) -> None:
        """Compute a block of columns; all rows are read before the first is written."""
        elements, done = self.elements, []
        for i, mask in enumerate(masks):
            for place, row in rows:
                known: Known = ChainMap({}, row)
                at = replace(place, column=column, lane=LANES * i, mask=mask)
                elements.evaluate(self.phase.steps, known, at)
                done.append((known, at))
        for known, at in done:
            elements.store(self.phase.stores, known, at)

    def _next(self, indices: list[Value]) -> list[Value]:
        """Return the indices of the next row: the last one counts up, and carries."""
        f, found, carry = self.f, [], "1"
        for index, size in zip(reversed(indices[1:]), reversed(self.kernel.places), strict=True):
            up = f.add(index, carry)
            ends = f.value(f"icmp eq i64 {up}, {size}")
            found.append(f.value(f"select i1 {ends}, i64 0, i64 {up}"))
            carry = f.value(f"zext i1 {ends} to i64")
        return [f.add(indices[0], carry), *reversed(found)]


def _divided(dim: Dim, by: int) -> Dim:
    return Batch(dim.factor // by) if isinstance(dim, Batch) else dim // by
