"""Loops over blocks of columns: kernels whose reduction axis is the rows."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.backends.native.elements import Elements, Known, Place
from graphc.backends.native.ir import Value
from graphc.backends.native.phases import Phase, needed, phases
from graphc.backends.native.ranges import BLOCK, Masks, blocks, in_thread, own
from graphc.kernels.body import Store
from graphc.kernels.kernel import CHUNK, LANES, Loop


@dataclass(frozen=True)
class _Block:
    """A block of columns: the place of each of its vectors, and the values known there."""

    column: Value | int
    places: Sequence[Place]
    known: Sequence[Known]


def emit_columns(elements: Elements, kernel: Loop, known: Known, stores: Sequence[Store]) -> None:
    """Emit a kernel by blocks of columns.

    Each block takes one pass over its rows per level of reductions, then `stores`, which happen
    once per column.
    """
    _Columns(elements, kernel, known, stores).emit()


class _Columns:
    def __init__(
        self, elements: Elements, kernel: Loop, known: Known, stores: Sequence[Store]
    ) -> None:
        self.elements, self.kernel, self.known, self.stores = elements, kernel, known, stores
        self.function = elements.function
        self.phases = phases(kernel.body)

    def emit(self) -> None:
        """Emit the loop over the blocks of a thread."""
        in_thread(self.function, self.kernel.split, self._blocks)

    def _blocks(self) -> None:
        elements, split = self.elements, self.kernel.split
        self.rows = own(self.function, elements.rows, CHUNK, split == "rows")
        first, last = own(self.function, elements.columns, BLOCK, split == "columns")
        if split == "columns" and isinstance(elements.columns, int):
            self._static_share(first, last, elements.columns)
        else:
            blocks(elements.vectors, first, last, self._block, size=BLOCK)

    def _static_share(self, first: Value | int, last: Value | int, columns: int) -> None:
        """Emit a loop over whole blocks, then the last columns, whose number is known.

        The thread whose share reaches the last columns runs them.
        """
        full = columns // BLOCK * BLOCK
        if full:
            end = self.function.smaller(last, full)
            self.function.loop(
                first, end, BLOCK, lambda column, _: self._block(column, [None] * 4, [])
            )
        if full < columns:
            mine = self.function.value(f"icmp sgt i64 {last}, {self.function.larger(first, full)}")
            self.function.when(mine, lambda: self._tail(full, columns))

    def _tail(self, full: int, columns: int) -> None:
        blocks(self.elements.vectors, full, columns, self._block, size=BLOCK)

    def _block(self, column: Value | int, masks: Masks, _: list[Value]) -> list[Value]:
        places = [Place(column=column, lane=LANES * i, mask=mask) for i, mask in enumerate(masks)]
        block = _Block(column, places, [ChainMap({}, dict(self.known)) for _ in masks])
        for phase in self.phases:
            self._pass(block, phase)
        elements = self.elements
        steps = needed(self.kernel.body, (store.step for store in self.stores))
        for place, known in zip(places, block.known, strict=True):
            elements.evaluate(steps, known, place)
        for place, known in zip(places, block.known, strict=True):
            elements.store(self.stores, known, place)
        return []

    def _pass(self, block: _Block, phase: Phase) -> None:
        elements = self.elements
        columns = elements.of_span(phase.steps, "column")
        for place, known in zip(block.places, block.known, strict=True):
            elements.evaluate(columns, known, place)
        starts = [elements.start(r) for _ in block.places for r in phase.reductions]
        sums = self.function.loop(
            *self.rows, 1, lambda row, sums: self._row(block, phase, row, sums), starts
        )
        for known in block.known:
            for reduction in phase.reductions:
                known[reduction] = sums.pop(0)

    def _row(self, block: _Block, phase: Phase, number: Value, sums: list[Value]) -> list[Value]:
        """Emit one row of a block, vector after vector, so that few values occupy registers."""
        elements = self.elements
        row: Known = ChainMap({}, dict(self.known))
        lines = elements.lines(number)
        elements.evaluate(elements.of_span(phase.steps, "row"), row, Place(number, lines))
        words = elements.words(phase.steps, row, number, block.column)
        results: list[Value] = []
        before = iter(sums)
        for i, (place, columns) in enumerate(zip(block.places, block.known, strict=True)):
            known: Known = ChainMap({n: found[i] for n, found in words.items()}, row, columns)
            at = Place(number, lines, place.column, place.lane, place.mask)
            elements.evaluate(phase.steps, known, at)
            for reduction in phase.reductions:
                results.append(elements.reduce(reduction, next(before), known, None))
            elements.store(phase.stores, known, at)
        return results
