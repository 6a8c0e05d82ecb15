"""The code of `Loop` kernels: the choice of a loop nest, blocks of columns, remaining stores."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphc.backends.body import Known, Phase, needed, reductions, stores_at
from graphc.backends.native.elements import Elements, Place, elements_of
from graphc.backends.native.gather_loops import GatherLoops, fetches
from graphc.backends.native.ir import Callee, Function, Module, Value
from graphc.backends.native.loop_structure import (
    THREAD_ARGUMENTS,
    LoopNest,
    Masks,
    as_one_column,
    as_one_row,
    block_size,
    blocks,
    draws,
    on_first_thread,
)
from graphc.backends.native.row_loops import FlatLoop, RowLoops, is_flat
from graphc.backends.native.vectors import Vectors
from graphc.ir.expr import Body, Broadcast, Store
from graphc.ir.tensor_type import Batch
from graphc.kernels.kernel import Loop, buffers_of


def emit_loop(module: Module, kernel: Loop, pitch: Mapping[str, int]) -> Callee:
    """Return the function of a kernel, added to the module unless it has an equal one.

    `void @loop(ptr buffers..., i64 %n, i64 %tid, i64 %threads)`.

    `pitch` has the elements from one row to the next, for each buffer whose rows are not
    contiguous.  Threads that call the function with the same arguments and their own `tid` below
    `threads` compute the kernel together.

    The first thread writes single numbers, and values stored once for each column if threads share
    the rows, or once for each row if they share the columns.  It does not wait for the others: such
    a store must not write memory that the kernel reads.
    """
    names = buffers_of(kernel)
    place = {name: f"b{number}" for number, name in enumerate(names)}
    kernel = kernel.renamed(place)
    pitches = {place[name]: size for name, size in pitch.items() if name in place}
    name = module.function(
        "loop",
        f"{''.join(f'ptr %{place[name]}, ' for name in names)}{THREAD_ARGUMENTS}",
        lambda function: _emit(function, kernel, pitches),
        ("loop", kernel, tuple(sorted(pitches.items()))),
    )
    return Callee(name, names)


def _emit(function: Function, kernel: Loop, pitch: Mapping[str, int]) -> None:
    kernel = _simplified(kernel, pitch)
    elements = _elements(function, kernel, pitch)
    known: Known = {}
    elements.evaluate(_hoisted(kernel.body), known, Place())
    stores = _emit_loops(elements, kernel, known)
    _emit_rest(elements, known, stores)


def _emit_loops(elements: Elements, kernel: Loop, known: Known) -> list[Store]:
    """Emit the loops of the kernel, and return the stores that remain.

    Stores that happen once for each row belong to the loops if each row has one thread.
    """
    body = kernel.body
    mine: tuple[Store, ...] = stores_at(body, "each")
    if fetches(kernel):
        GatherLoops(elements, kernel, known).emit()
    elif is_flat(kernel, elements):
        FlatLoop(elements, kernel, known).emit()
    elif _hoists_columns(kernel) or (kernel.axis == "rows" and kernel.partition != "rows"):
        once = stores_at(body, "column") if kernel.partition != "rows" else ()
        _Columns(elements, kernel, known, once).emit()
        mine += once
    else:
        once = stores_at(body, "row") if kernel.partition != "columns" else ()
        RowLoops(elements, kernel, known, once).emit()
        mine += once
    return [store for store in body.stores if store not in mine]


def _simplified(kernel: Loop, pitch: Mapping[str, int]) -> Loop:
    """Return the kernel with its single row or column treated as plain elements, for speed."""
    reduced = {kernel.body.steps[number].value for number in reductions(kernel.body)}
    assert reduced <= {kernel.axis}, "reductions run along the kernel's axis"
    if fetches(kernel):
        return kernel
    assert not reduced or kernel.partition in ("none", _across(kernel)), (
        "no reduction is partitioned among threads"
    )
    if reduced:
        return as_one_row(kernel) if kernel.rows == 1 and kernel.axis == "columns" else kernel
    dense = all(size == 1 for size in pitch.values())
    if kernel.columns == 1 and dense and kernel.partition != "columns" and not draws(kernel.body):
        kernel = as_one_column(kernel)
    return as_one_row(kernel) if kernel.rows == 1 else kernel


def _across(kernel: Loop) -> str:
    return "rows" if kernel.axis == "columns" else "columns"


def _elements(function: Function, kernel: Loop, pitch: Mapping[str, int]) -> Elements:
    rows, columns = (
        function.size(dim) if isinstance(dim, Batch) else dim
        for dim in (kernel.rows, kernel.columns)
    )
    buffers = {name: f"%{name}" for name in (*kernel.body.loads, *kernel.body.written)}
    return elements_of(
        Vectors(function, function.module.lanes), kernel.body, buffers, rows, columns, pitch
    )


def _hoisted(body: Body) -> list[int]:
    """Return the steps of broadcast kind one that some store or reduction needs."""
    roots = [store.step for store in body.stores]
    roots += [body.steps[number].args[0] for number in reductions(body)]
    return [number for number in needed(body, roots) if body.steps[number].broadcast == "one"]


def _hoists_columns(kernel: Loop) -> bool:
    """Return whether to loop over rows within blocks of columns, to hoist steps of kind column.

    Without reductions the order of elements is free.
    """
    body = kernel.body
    computed = any(s.broadcast == "column" and s.op not in ("load", "index") for s in body.steps)
    return computed and not reductions(body) and kernel.rows != 1


@dataclass(frozen=True)
class _Block:
    """A block of columns: the place of each of its vectors, and the values known there."""

    column: Value | int
    places: Sequence[Place]
    known: Sequence[Known]


class _Columns(LoopNest):
    """The emitter of a kernel by blocks of columns.

    Each block takes a pass over its rows per level of reductions, then `stores`, once per column.
    """

    def loops(self) -> None:
        """Emit the loop over the blocks of a thread."""
        elements, partition = self.elements, self.kernel.partition
        self.size = block_size(elements.vectors, many=True)
        self.rows, (first, last) = elements.of_thread(partition)
        if partition == "columns" and isinstance(elements.columns, int):
            self._static_share(first, last, elements.columns)
        else:
            blocks(elements.vectors, first, last, self._block, size=self.size)

    def _static_share(self, first: Value | int, last: Value | int, columns: int) -> None:
        """Emit a loop over whole blocks, then the last columns, whose number is known.

        The thread whose share reaches the last columns runs them.
        """
        full = columns // self.size * self.size
        masks = [None] * (self.size // self.elements.vectors.lanes)
        if full:
            end = self.function.smaller(last, full)
            self.function.loop(
                first, end, self.size, lambda column, _: self._block(column, masks, [])
            )
        if full < columns:
            mine = self.function.value(f"icmp sgt i64 {last}, {self.function.larger(first, full)}")
            self.function.when(mine, lambda: self._tail(full, columns))

    def _tail(self, full: int, columns: int) -> None:
        blocks(self.elements.vectors, full, columns, self._block, size=self.size)

    def _block(self, column: Value | int, masks: Masks, _: list[Value]) -> list[Value]:
        lanes = self.elements.vectors.lanes
        places = [Place(column=column, lane=lanes * i, mask=mask) for i, mask in enumerate(masks)]
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
        columns = elements.of_kinds(phase.steps, "column")
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
        elements.evaluate(elements.of_kinds(phase.steps, "row"), row, Place(number, lines))
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


def _emit_rest(elements: Elements, known: Known, stores: Sequence[Store]) -> None:
    """Emit the remaining stores, for the first thread to run after its part of the loops.

    They are single numbers, and values of a row or column that several threads share.
    """
    levels: tuple[Broadcast, ...] = ("row", "column", "one")
    rows, columns, numbers = (
        [store for store in stores if store in stores_at(elements.body, level)] for level in levels
    )

    def at(stores: Sequence[Store], place: Place) -> None:
        values: Known = ChainMap({}, dict(known))
        elements.evaluate(needed(elements.body, (s.step for s in stores)), values, place)
        elements.store(stores, values, place)

    def block(column: Value | int, masks: Masks, _: list[Value]) -> list[Value]:
        for i, mask in enumerate(masks):
            at(columns, Place(column=column, lane=elements.vectors.lanes * i, mask=mask))
        return []

    def emit() -> None:
        if rows:
            elements.function.loop(0, elements.rows, 1, lambda row, _: at(rows, Place(row)))
        if columns:
            blocks(elements.vectors, 0, elements.columns, block)
        elements.store(numbers, known, Place())

    if stores:
        on_first_thread(elements.function, emit)
