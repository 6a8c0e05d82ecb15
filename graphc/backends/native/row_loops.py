"""Loops over row after row: reductions of the columns, and kernels without reductions."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd

from graphc.backends.native.elements import Elements, Known, Place
from graphc.backends.native.ir import Value
from graphc.backends.native.lane_rows import LaneRows, takes_lanes
from graphc.backends.native.phases import Phase, needed, phases
from graphc.backends.native.ranges import (
    BLOCK,
    Masks,
    block_size,
    blocks,
    in_thread,
    own,
    static_masks,
)
from graphc.kernels.body import Store
from graphc.kernels.kernel import CHUNK, LANES, Loop


@dataclass(frozen=True)
class _Row:
    """A row: its place, its known values, and the kept values of its vectors."""

    place: Place
    known: Known
    kept: Sequence[Known] | None
    """For a row of few vectors the values of each, in all passes; else None."""


def emit_rows(elements: Elements, kernel: Loop, known: Known, stores: Sequence[Store]) -> None:
    """Emit the kernel row by row: a pass over its columns for each level of reductions.

    Then come `stores`, which happen once a row.
    """
    _Rows(elements, kernel, known, stores).emit()


class _Rows:
    def __init__(
        self, elements: Elements, kernel: Loop, known: Known, stores: Sequence[Store]
    ) -> None:
        self.elements, self.kernel, self.known, self.stores = elements, kernel, known, stores
        self.function = elements.function
        self.phases = phases(kernel.body)
        self.unit = kernel.columns if isinstance(kernel.columns, int) else 1

    def emit(self) -> None:
        """Emit the loop over the rows of a thread."""
        in_thread(self.function, self.kernel.split, self._rows)

    def _rows(self) -> None:
        split, elements = self.kernel.split, self.elements
        columns = elements.columns
        start, end = own(self.function, elements.rows, CHUNK, split == "rows")
        first, last = own(self.function, columns, BLOCK, split == "columns")
        small = isinstance(columns, int) and columns <= BLOCK

        def rows() -> None:
            bounds = (0, columns) if small else (first, last)
            alone = self._by_lanes(start, end) if takes_lanes(self.kernel) else start
            self.function.loop(alone, end, 1, lambda row, _: self._row(row, *bounds))

        if small and split == "columns":
            self.function.when(self.function.value(f"icmp slt i64 {first}, {last}"), rows)
        else:
            rows()

    def _by_lanes(self, start: Value | int, end: Value | int) -> Value:
        """Emit sixteen rows at a time, and return the first of the rows that are left."""
        lanes = LaneRows(self.elements, self.kernel, self.known, self.stores)
        full = self.function.add(start, self.function.even(self.function.sub(end, start), LANES))
        self.function.loop(start, full, LANES, lambda row, _: lanes.emit(row))
        return full

    def _row(self, number: Value, first: Value | int, last: Value | int) -> None:
        known: Known = ChainMap({}, dict(self.known))
        kept = None
        if isinstance(last, int) and last <= BLOCK:
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
        elements.evaluate(elements.of_span(phase.steps, "row"), row.known, row.place)

        def visit(column: Value | int, masks: Masks, sums: list[Value]) -> list[Value]:
            return self._block(row, phase, column, masks, sums)

        starts = [elements.start(r) for r in phase.reductions]
        size = BLOCK if row.kept else block_size(self.kernel.body)
        sums = blocks(
            elements.vectors, first, last, visit, starts, size=size, unit=gcd(self.unit, BLOCK)
        )
        for reduction, total in zip(phase.reductions, sums, strict=True):
            row.known[reduction] = elements.across(reduction, total)

    def _block(
        self, row: _Row, phase: Phase, column: Value | int, masks: Masks, sums: list[Value]
    ) -> list[Value]:
        """Compute vector after vector, so that few values wait in registers."""
        elements = self.elements
        vectors = row.kept or [ChainMap({}, row.known) for _ in masks]
        unknown = [number for number in phase.steps if number not in vectors[0]]
        words = elements.words(unknown, row.known, row.place.row, column)
        for i, (mask, known) in enumerate(zip(masks, vectors, strict=True)):
            place = replace(row.place, column=column, lane=LANES * i, mask=mask)
            known.update({number: found[i] for number, found in words.items()})
            elements.evaluate(phase.steps, known, place)
            sums = [
                elements.reduce(r, total, known, mask)
                for r, total in zip(phase.reductions, sums, strict=True)
            ]
            elements.store(phase.stores, known, place)
        return sums
