"""Transposes, which copy a value with its axes permuted, and scatter-adds of rows.

If the last axis is contiguous in the source too, a transpose copies its rows.  Else squares are
read along the source's contiguous axis, transposed in registers, and written along the last one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from graphc.backends.native.elements import Bounds
from graphc.backends.native.ir import Callee, Function, Module, Value
from graphc.backends.native.loop_structure import (
    BLOCK,
    THREAD_ARGUMENTS,
    Masks,
    blocks,
    copy,
    each_index,
)
from graphc.backends.native.vectors import Vectors, element_type
from graphc.ir.tensor_type import ITEMSIZE, Dim, count
from graphc.kernels.iteration_space import permuted_strides
from graphc.kernels.kernel import Permutation, ScatterAdd

SQUARE = 8
"""The rows and columns of the squares that are transposed in registers."""
WORD = {1: "int8", 2: "int16", 4: "int32", 8: "int64"}
"""The dtype as which elements are moved, by their bytes."""

Sizes = tuple[Value, Value, Value]
"""The values of an `Axis`."""


class Axis(NamedTuple):
    """An axis of the result: its size, and the elements from one index to the next in both."""

    size: Dim
    read: Dim
    written: Dim


def emit_permuted(module: Module, kernel: Permutation) -> Callee:
    """Return a transpose's function, `(ptr %from, ptr %to, i64 %n, i64 %tid, i64 %threads, ...)`.

    One copies the squares of all transposes with as many axes, whose sizes it is given.
    """
    dtype = WORD[ITEMSIZE[kernel.body.steps[0].dtype]]
    axes = _axes_of(kernel)
    rows = axes[-1].read == 1
    ordered = axes if rows else _inner_first(axes)
    sizes = () if rows else tuple(size for axis in ordered for size in axis)
    given = [f"%size{i}" for i in range(len(sizes))]

    def emit(f: Function) -> None:
        """Emit copies of rows if they stay contiguous, else of squares."""
        transpose = _Transpose(Vectors(f, min(SQUARE, module.lanes)), dtype)
        if rows:
            transpose.rows([(f.size(x), f.size(y), f.size(z)) for x, y, z in axes])
        else:
            transpose.squares([*zip(given[::3], given[1::3], given[2::3], strict=True)])

    arguments = "".join(f", i64 {size}" for size in given)
    name = module.function(
        "permute",
        f"ptr %from, ptr %to, {THREAD_ARGUMENTS}{arguments}",
        emit,
        ("permute", dtype, axes if rows else len(sizes)),
    )
    return Callee(name, (*kernel.body.loads, *kernel.body.written), sizes)


def _inner_first(axes: Sequence[Axis]) -> list[Axis]:
    """Return the axis that is contiguous in the source, the last axis, and the others."""
    inner = next(axis for axis in axes if axis.read == 1)
    return [inner, axes[-1], *(axis for axis in axes[:-1] if axis is not inner)]


def _axes_of(kernel: Permutation) -> tuple[Axis, ...]:
    """Return the axes of the result longer than 1; axes that stay neighbours are merged."""
    sizes = [kernel.shape[axis] for axis in kernel.axes]
    found: list[Axis] = []
    for axis, (size, read) in enumerate(
        zip(sizes, permuted_strides(kernel.shape, kernel.axes), strict=True)
    ):
        if size == 1:
            continue
        new = Axis(size, read, count(tuple(sizes[axis + 1 :])))
        if found and found[-1].read == count((new.size, read)):
            new = Axis(count((found.pop().size, size)), read, new.written)
        found.append(new)
    return tuple(found) or (Axis(1, 1, 1),)


class _Transpose:
    """The emitter of a copy with axes in another order, each given by the values of an `Axis`."""

    def __init__(self, v: Vectors, dtype: str) -> None:
        self.v, self.f, self.dtype, self.element = v, v.function, dtype, element_type(dtype)

    def rows(self, axes: Sequence[Sizes]) -> None:
        """Emit copies of the last axis as it is."""
        size, _, _ = axes[-1]
        for source, target, _ in self._shared(axes[:-1], []):
            copy(self.v, source, target, size, self.dtype)

    def squares(self, axes: Sequence[Sizes]) -> None:
        """Emit copies of squares of the first two axes; see `_inner_first`."""
        (size, _, written), (last, read, _), *others = axes
        blocks = self.f.ceiling(size, self.v.lanes)
        name = _strip(self.f.module, self.v.lanes, self.dtype)
        for source, target, block in self._shared(others, [blocks]):
            start = self.f.mul(block, self.v.lanes)
            at = self._at(source, start), self._at(target, self.f.mul(start, written))
            self.f.call(name, *at, self.f.sub(size, start), last, read, written)

    def _shared(
        self, axes: Sequence[Sizes], more: list[Value]
    ) -> Iterator[tuple[Value, Value, Value]]:
        """Emit a loop over a thread's part of the indices in these axes and in sizes `more`.

        Yield the addresses in source and result, and the index of the last size.
        """
        f = self.f
        for place in each_index(f, [*(size for size, _, _ in axes), *more]):
            source, target = "%from", "%to"
            for (_, read, written), index in zip(axes, place, strict=False):
                source = self._at(source, f.mul(index, read))
                target = self._at(target, f.mul(index, written))
            yield source, target, place[-1] if more else "0"

    def _at(self, base: Value, index: Value) -> Value:
        return self.f.address(base, index, self.element)


def _strip(module: Module, lanes: int, dtype: str) -> str:
    """Return the function that copies squares of neighbours in the source, for the whole last axis.

    `void @strip(ptr %source, ptr %target, i64 %left, i64 %size, i64 %read, i64 %written)`: of the
    neighbours at most `left`; of the last axis `size`, which are `read` apart in the source.  In
    the result neighbours are `written` apart.  All transposes share it.
    """
    return module.function(
        "strip",
        "ptr %source, ptr %target, i64 %left, i64 %size, i64 %read, i64 %written",
        lambda f: _Strip(Vectors(f, lanes), dtype).emit(),
        ("strip of a transpose", lanes, dtype),
    )


class _Strip:
    """The emitter of a strip of squares; see `_strip`."""

    def __init__(self, v: Vectors, dtype: str) -> None:
        self.v, self.f, self.dtype, self.element = v, v.function, dtype, element_type(dtype)

    def emit(self) -> None:
        """Emit whole squares, then those past an end."""
        f, lanes = self.f, self.v.lanes
        full = f.value(f"icmp sge i64 %left, {lanes}")
        end = f.value(f"select i1 {full}, i64 {f.round_down('%size', lanes)}, i64 0")
        f.loop(0, end, lanes, lambda i, _: self._square(i, None))
        f.loop(end, "%size", lanes, lambda i, _: self._square(i, "%left"))

    def _square(self, i: Value, left: Value | None) -> None:
        """Copy a square of both axes, from index i of the last one; masked if `left` is given."""
        f, v = self.f, self.v
        mask = None if left is None else v.mask_below(left)
        rows = []
        for k in range(v.lanes):
            number = f.add(i, k)
            if left is not None:
                # Rows past the end repeat the last one; the masked stores below drop them.
                number = f.smaller(number, f.sub("%size", 1))
            place = f.address("%source", f.mul(number, "%read"), self.element)
            rows.append(v.load(place, self.dtype, mask))
        below = f.sub("%size", i)
        for k, x in enumerate(v.transpose(rows, self.dtype)):
            place = f.address("%target", f.add(f.mul("%written", k), i), self.element)
            if left is None:
                v.store(x, place, self.dtype)
            else:
                there = f.value(f"icmp sgt i64 {left}, {k}")
                width = f.value(f"select i1 {there}, i64 {below}, i64 0")
                v.store(x, place, self.dtype, v.mask_below(width))


def emit_scatter_add(module: Module, kernel: ScatterAdd) -> Callee:
    """Return the function of a scatter-add of rows, added to the module unless it has it.

    `void @add(ptr %rows, ptr %indices, ptr %out, i64 %n, i64 %tid, i64 %threads)`
    """
    (step,) = kernel.body.steps
    sizes = kernel.rows, kernel.columns, kernel.count
    name = module.function(
        "add",
        f"ptr %rows, ptr %indices, ptr %out, {THREAD_ARGUMENTS}",
        lambda f: _ScatterAdd(Vectors(f, module.lanes), step.dtype, kernel).emit(),
        ("add rows", step.dtype, kernel.index_dtype, sizes, kernel.partition),
    )
    return Callee(name, (kernel.source, kernel.indices, *kernel.body.written))


class _ScatterAdd:
    """The emitter for a thread's columns: set them to zero, then add all rows in order."""

    def __init__(self, v: Vectors, dtype: str, kernel: ScatterAdd) -> None:
        self.v, self.f, self.dtype, self.added = v, v.function, dtype, kernel
        self.element, self.rows = element_type(dtype), _counted(kernel.rows)
        self.columns = _counted(kernel.columns)
        shared = kernel.partition == "columns"
        self.bounds: Bounds = (
            self.f.thread_part(self.columns, BLOCK) if shared else (0, self.columns)
        )

    def emit(self) -> None:
        """Emit the loop that clears the result's rows, then the loop that adds rows to them."""
        self.f.loop(0, self.rows, 1, lambda row, _: self._clear(self._line("%out", row)))
        self.f.loop(0, self.f.size(self.added.count), 1, lambda row, _: self._row(row))

    def _line(self, base: Value, row: Value) -> Value:
        return self.f.address(base, self.f.mul(row, self.columns), self.element)

    def _clear(self, line: Value) -> None:
        def visit(column: Value | int, masks: Masks, _: list[Value]) -> list[Value]:
            for i, mask in enumerate(masks):
                place = self.f.address(line, self.f.add(column, self.v.lanes * i), self.element)
                self.v.store(self.v.const(0, self.dtype), place, self.dtype, mask)
            return []

        blocks(self.v, *self.bounds, visit)

    def _row(self, number: Value) -> None:
        v, f, dtype = self.v, self.f, self.dtype
        source, target = self._line("%rows", number), self._line("%out", self._index(number))

        def visit(column: Value | int, masks: Masks, _: list[Value]) -> list[Value]:
            """Emit the addition of some vectors of the row."""
            for i, mask in enumerate(masks):
                at = f.add(column, self.v.lanes * i)
                place = f.address(target, at, self.element)
                x = v.load(f.address(source, at, self.element), dtype, mask)
                v.store(v.add(v.load(place, dtype, mask), x, dtype), place, dtype, mask)
            return []

        blocks(v, *self.bounds, visit)

    def _index(self, number: Value) -> Value:
        """Emit the result row that an index names, clamped to the rows of the result."""
        v, dtype = self.v, self.added.index_dtype
        place = self.f.address("%indices", number, element_type(dtype))
        index = v.first(v.cast(v.load_splat(place, dtype), dtype, "int64"), "int64")
        return self.f.smaller(self.f.larger(index, 0), self.rows - 1)


def _counted(dim: Dim) -> int:
    assert isinstance(dim, int), "the result is as large as a table"
    return dim
