"""Loops over rows: one after the other, sixteen at once, or all of them as one long row."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import gcd

from graphc.backends.body import (
    Known,
    Leaf,
    Phase,
    evaluate,
    joined,
    needed,
    phases,
    reductions,
)
from graphc.backends.native.elements import Elements, Place
from graphc.backends.native.ir import Value
from graphc.backends.native.loop_structure import (
    BLOCK,
    LoopNest,
    Masks,
    block_size,
    blocks,
    draws,
    static_masks,
)
from graphc.backends.native.vectors import element_type
from graphc.ir.expr import Body, Step, Store
from graphc.ir.tensor_type import ITEMSIZE
from graphc.kernels.kernel import LANES, Loop


@dataclass(frozen=True)
class _Row:
    """A row: its place, its known values, and the kept values of its vectors."""

    place: Place
    known: Known
    kept: Sequence[Known] | None
    """The values of each vector, kept from pass to pass; None if a row has many vectors."""


class RowLoops(LoopNest):
    """The emitter of a kernel by rows: a pass a level of reductions, then `stores` once a row."""

    def loops(self) -> None:
        """Emit the loop over the rows of a thread."""
        partition, columns = self.kernel.partition, self.elements.columns
        (start, end), (first, last) = self.elements.of_thread(partition)
        # A row of one block has one thread, which keeps its vectors from pass to pass.
        small = isinstance(columns, int) and columns <= BLOCK
        by_lanes = rows_fit_lanes(self.kernel) and not self.elements.vectors.narrow

        def rows() -> None:
            bounds = (0, columns) if small else (first, last)
            rest = self._by_lanes(start, end) if by_lanes else start
            self.function.loop(rest, end, 1, lambda row, _: self._row(row, *bounds))

        if small and partition == "columns":
            self.function.when(self.function.less(first, last), rows)
        else:
            rows()

    def _by_lanes(self, start: Value | int, end: Value | int) -> Value:
        """Emit sixteen rows at a time, and return the first of the rows that are left."""
        lanes = LaneRows(self.elements, self.kernel, self.known, self.stores)
        f = self.function
        full = f.add(start, f.round_down(f.sub(end, start), LANES))
        f.loop(start, full, LANES, lambda row, _: lanes.emit(row))
        return full

    def _row(self, number: Value, first: Value | int, last: Value | int) -> None:
        known: Known = ChainMap({}, dict(self.known))
        kept = None
        if isinstance(last, int) and last <= BLOCK and not self.elements.vectors.narrow:
            count = len(static_masks(self.elements.vectors, last))
            kept = [ChainMap({}, known) for _ in range(count)]
        row = _Row(Place(number, self.elements.lines(number)), known, kept)
        for phase in self.phases:
            self._pass(row, phase, first, last)
        steps = needed(self.kernel.body, (store.step for store in self.stores))
        self.elements.evaluate(steps, known, row.place)
        self.elements.store(self.stores, known, row.place)

    def _pass(self, row: _Row, phase: Phase, first: Value | int, last: Value | int) -> None:
        elements = self.elements
        elements.evaluate(elements.of_kinds(phase.steps, "row"), row.known, row.place)

        def visit(column: Value | int, masks: Masks, sums: list[Value]) -> list[Value]:
            return self._block(row, phase, column, masks, sums)

        starts = [elements.start(r) for r in phase.reductions]
        size = block_size(elements.vectors, many=row.kept is not None or draws(self.kernel.body))
        columns = self.kernel.columns
        unit = gcd(columns, BLOCK) if isinstance(columns, int) else 1
        sums = blocks(elements.vectors, first, last, visit, starts, size=size, unit=unit)
        for reduction, total in zip(phase.reductions, sums, strict=True):
            row.known[reduction] = elements.reduce_lanes(reduction, total)

    def _block(
        self, row: _Row, phase: Phase, column: Value | int, masks: Masks, sums: list[Value]
    ) -> list[Value]:
        """Emit a block, vector after vector, so that few values occupy registers."""
        elements = self.elements
        vectors = row.kept or [ChainMap({}, row.known) for _ in masks]
        unknown = [number for number in phase.steps if number not in vectors[0]]
        words = elements.words(unknown, row.known, row.place.row, column)
        for i, (mask, known) in enumerate(zip(masks, vectors, strict=True)):
            place = replace(row.place, column=column, lane=elements.vectors.lanes * i, mask=mask)
            known.update({number: found[i] for number, found in words.items()})
            elements.evaluate(phase.steps, known, place)
            sums = [
                elements.reduce(r, total, known, mask, place.column)
                for r, total in zip(phase.reductions, sums, strict=True)
            ]
            elements.store(phase.stores, known, place)
        return sums


class FlatLoop(RowLoops):
    """The emitter of all elements as one row, without reductions."""

    def loops(self) -> None:
        """Emit the loop over the elements of a thread."""
        elements = self.elements
        rows, bounds = elements.of_thread(self.kernel.partition)
        if self.kernel.partition != "columns":
            first, last = (self.function.mul(end, elements.columns) for end in rows)
            bounds = first, last
        row = _Row(Place(0, elements.buffers), self.known, None)
        for phase in self.phases:  # one at most
            self._pass(row, phase, *bounds)


def is_flat(kernel: Loop, elements: Elements) -> bool:
    """Return whether all elements may form one row: nothing depends on where a row begins."""
    body = kernel.body
    kinds = {step.broadcast for step in body.steps} | {store.broadcast for store in body.stores}
    if reductions(body) or not kinds <= {"each", "one"}:
        return False
    dense = all(pitch == elements.columns for pitch in elements.pitch.values())
    return kernel.rows == 1 or (dense and not draws(body) and kernel.partition != "columns")


def rows_fit_lanes(kernel: Loop) -> bool:
    """Return whether to emit sixteen rows at once: they are reduced, and one fits in a vector."""
    few = isinstance(kernel.columns, int) and 1 < kernel.columns <= LANES
    many = not isinstance(kernel.rows, int) or kernel.rows >= LANES
    narrow = all(ITEMSIZE[dtype] == 4 for dtype in _moved(kernel.body))
    fit = few and many and narrow and not draws(kernel.body)
    return fit and bool(reductions(kernel.body))


def _moved(body: Body) -> Iterable[str]:
    """Yield the dtypes of elements that are read or written."""
    yield from (s.dtype for s in body.steps if s.op == "load" and s.broadcast == "each")
    yield from (body.steps[s.step].dtype for s in body.stores if s.broadcast == "each")


class LaneRows:
    """The emitter of sixteen rows at once, each in its own lane."""

    def __init__(
        self, elements: Elements, kernel: Loop, known: Known, stores: Sequence[Store]
    ) -> None:
        """Prepare for a kernel; `stores` happen once a row."""
        assert isinstance(kernel.columns, int), "see rows_fit_lanes"
        self.elements, self.body, self.stores = elements, kernel.body, stores
        self.known, self.count = known, kernel.columns
        self.v, self.f = elements.vectors, elements.function
        self.mask = self.v.mask_below(self.count) if self.count < LANES else None
        self.phases = phases(kernel.body)

    def emit(self, first: Value | int) -> None:
        """Emit the code for the sixteen rows from `first` on."""
        rows: Known = ChainMap({}, dict(self.known))
        columns: list[Known] = [ChainMap({}, rows) for _ in range(self.count)]
        of_rows = partial(self._of_rows, first)
        for phase in self.phases:
            self._evaluate(self.elements.of_kinds(phase.steps, "row"), rows, of_rows)
            self._pass(phase, first, columns)
            rows.update({number: self._reduced(number, columns) for number in phase.reductions})
            for store in phase.stores:
                self._write(store, first, columns)
        self._evaluate(needed(self.body, (s.step for s in self.stores)), rows, of_rows)
        for store in self.stores:
            self._write_row(store, first, rows)

    def _pass(self, phase: Phase, first: Value | int, columns: Sequence[Known]) -> None:
        """Emit the steps that a phase needs, column by column."""
        for number in self.elements.of_kinds(phase.steps, "each"):
            step = self.body.steps[number]
            if step.op == "load" and number not in columns[0]:
                for known, x in zip(columns, self._read(step, first), strict=True):
                    known[number] = x
        for j, known in enumerate(columns):
            self._evaluate(phase.steps, known, partial(self._of_column, first, j))

    def _evaluate(self, steps: Iterable[int], known: Known, leaf: Leaf) -> None:
        evaluate(self.v, self.body, steps, known, leaf)

    # ------------------------------------------------------------------ leaves

    def _of_rows(self, first: Value | int, step: Step) -> Value:
        """Return a value of broadcast kind row or one, with each row's in its lane."""
        if step.op == "load" and step.broadcast == "row":
            return self.v.load(self._place(step.buffer, first, step.dtype), step.dtype)
        if step.op == "index" and step.broadcast == "row":
            return self.v.numbers_from(str(first))
        return self.elements.uniform_leaf(step)

    def _of_column(self, first: Value | int, j: int, step: Step) -> Value:
        if step.broadcast != "column":
            return self._of_rows(first, step)
        if step.op == "load":
            return self.v.load_splat(self._place(step.buffer, j, step.dtype), step.dtype)
        assert step.op == "index", f"a loop kernel has no {step.op} here"
        return self.v.const(j, "int64")

    def _place(self, buffer: str, index: Value | int, dtype: str) -> Value:
        return self.f.address(self.elements.buffers[buffer], index, element_type(dtype))

    # ------------------------------------------------------------------ rows and columns

    def _lines(self, buffer: str, first: Value | int, dtype: str) -> list[Value]:
        pitch = self.elements.pitch[buffer]
        start = self._place(buffer, self.f.mul(first, pitch), dtype)
        steps = [self.f.mul(pitch, i) for i in range(LANES)]
        return [self.f.address(start, step, element_type(dtype)) for step in steps]

    def _read(self, step: Step, first: Value | int) -> list[Value]:
        """Load sixteen rows, and return their columns."""
        lines = self._lines(step.buffer, first, step.dtype)
        rows = [self.v.load(line, step.dtype, self.mask) for line in lines]
        return self.v.transpose(rows, step.dtype)[: self.count]

    def _write(self, store: Store, first: Value | int, columns: Sequence[Known]) -> None:
        dtype = self.body.steps[store.step].dtype
        vectors = [known[store.step] for known in columns]
        # Columns beyond the matrix: the masked stores below drop them, so they need no value.
        vectors += ["poison"] * (LANES - self.count)
        rows = self.v.transpose(vectors, dtype)
        for line, x in zip(self._lines(store.buffer, first, dtype), rows, strict=True):
            self.v.store(x, line, dtype, self.mask)

    def _write_row(self, store: Store, first: Value | int, rows: Known) -> None:
        dtype = self.body.steps[store.step].dtype
        self.v.store(rows[store.step], self._place(store.buffer, first, dtype), dtype)

    def _reduced(self, number: int, columns: Sequence[Known]) -> Value:
        """Emit the columns' reduction in the order of a vector's lanes: each from 0, then halves.

        Lanes without a column would change nothing: they would add 0 to a sum that is not -0, or
        -inf to a maximum.
        """
        step = self.body.steps[number]
        parts = [known[step.args[0]] for known in columns]
        if step.op == "sum":
            zero = self.v.const(0, step.dtype)
            parts = [self.v.add(zero, x, step.dtype) for x in parts]
        half = LANES // 2
        while half:
            low, high = parts[:half], parts[half:]
            met = [joined(self.v, step, a, b) for a, b in zip(low, high, strict=False)]
            parts, half = met + low[len(met) :], half // 2
        return parts[0]
