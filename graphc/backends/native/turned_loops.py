"""Copies of a value with its axes permuted.

If the last axis is contiguous in the source too, its rows are copied.  Else squares are read along
the axis that is contiguous in the source, transposed in registers, and written along the last axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.backends.native.gemm_stack import place_of, size_of
from graphc.backends.native.ir import Function, Module, Value
from graphc.backends.native.vectors import Vectors, element_type
from graphc.ir.tensor_type import ITEMSIZE, Dim, count
from graphc.kernels.kernel import Loop, Turned
from graphc.kernels.turned import turned_strides

LANES = 8
WORD = {4: "int32", 8: "int64"}
"""The dtype as which elements are moved, by their bytes."""

Body = Callable[[Value, Value, Value], None]
"""A writer of a place's code: from its addresses in source and result, and a block's number."""


@dataclass(frozen=True)
class Axis:
    """An axis of the result: its size, and the elements from one index to the next in both."""

    size: Dim
    read: Dim
    written: Dim


def emit_turned(module: Module, kernel: Loop, turned: Turned) -> str:
    """Return the copy `@turn(ptr %from, ptr %to, i64 %n, i64 %tid, i64 %threads)`."""
    dtype = WORD[ITEMSIZE[kernel.body.steps[0].dtype]]
    axes = axes_of(turned)
    key = ("turn", dtype, axes)
    name = module.known(key)
    if name is None:
        name = module.name("turn", key)
        arguments = [("ptr", "%from"), ("ptr", "%to")]
        arguments += [("i64", "%n"), ("i64", "%tid"), ("i64", "%threads")]
        f = Function(name, arguments, attributes="#1")
        _Turn(Vectors(module, f, LANES), dtype, axes).emit()
        f.ret()
        module.add(f)
    return name


def axes_of(turned: Turned) -> tuple[Axis, ...]:
    """Return the axes of the result longer than one; axes that stay together count as one."""
    sizes = [turned.shape[axis] for axis in turned.axes]
    found: list[Axis] = []
    for axis, (size, read) in enumerate(
        zip(sizes, turned_strides(turned.shape, turned.axes), strict=True)
    ):
        if size == 1:
            continue
        new = Axis(size, read, count(tuple(sizes[axis + 1 :])))
        if found and found[-1].read == count((new.size, read)):
            new = Axis(count((found.pop().size, size)), read, new.written)
        found.append(new)
    return tuple(found) or (Axis(1, 1, 1),)


class _Turn:
    """The writer of a copy's code."""

    def __init__(self, v: Vectors, dtype: str, axes: Sequence[Axis]) -> None:
        self.v, self.f, self.dtype, self.axes = v, v.function, dtype, axes
        self.element = element_type(dtype)

    def emit(self) -> None:
        """Emit copies of rows if they stay contiguous, else of squares."""
        last = self.axes[-1]
        if last.read == 1:
            self._shared(self.axes[:-1], [], lambda source, target, _: self._row(source, target))
            return
        inner = next(axis for axis in self.axes if axis.read == 1)
        others = [axis for axis in self.axes[:-1] if axis is not inner]
        size = size_of(self.f, inner.size)
        blocks = self.f.value(f"udiv i64 {self.f.add(size, LANES - 1)}, {LANES}")

        def strip(source: Value, target: Value, block: Value) -> None:
            start = self.f.mul(block, LANES)
            left = self.f.sub(size, start)
            source = self._at(source, start)
            target = self._at(target, self.f.mul(start, size_of(self.f, inner.written)))
            self._strip(source, target, left, inner)

        self._shared(others, [blocks], strip)

    def _shared(self, axes: Sequence[Axis], more: list[Value], body: Body) -> None:
        """Emit a thread's part of all places in these axes, and of `more`."""
        f = self.f
        counts = [*(size_of(f, axis.size) for axis in axes), *more]
        total: Value = "1"
        for size in counts:
            total = f.mul(total, size)
        first, last = (
            f.value(f"udiv i64 {f.mul(thread, total)}, %threads")
            for thread in ("%tid", f.add("%tid", 1))
        )

        def each(number: Value, _: list[Value]) -> None:
            place = place_of(f, number, counts) if counts else []
            source, target = "%from", "%to"
            for axis, index in zip(axes, place, strict=False):
                source = self._at(source, f.mul(index, size_of(f, axis.read)))
                target = self._at(target, f.mul(index, size_of(f, axis.written)))
            body(source, target, place[-1] if more else "0")

        f.loop(first, last, 1, each)

    def _row(self, source: Value, target: Value) -> None:
        """Copy a row as it is."""
        f, v = self.f, self.v
        size = size_of(f, self.axes[-1].size)

        def piece(i: Value, mask: Value | None) -> None:
            x = v.load(self._at(source, i), self.dtype, mask)
            v.store(x, self._at(target, i), self.dtype, mask)

        full = f.even(size, LANES)
        f.loop(0, full, LANES, lambda i, _: piece(i, None))
        if not full.startswith("%") and full == size:
            return
        left = f.sub(size, full)
        some = f.value(f"icmp sgt i64 {left}, 0")
        f.when(some, lambda: piece(full, v.mask_below(left)))

    def _strip(self, source: Value, target: Value, left: Value, inner: Axis) -> None:
        """Copy at most LANES neighbours in the source, `left` if fewer, for the whole last axis."""
        f, last = self.f, self.axes[-1]
        size = size_of(f, last.size)
        full = f.value(f"icmp sge i64 {left}, {LANES}")
        end = f.value(f"select i1 {full}, i64 {f.even(size, LANES)}, i64 0")
        f.loop(0, end, LANES, lambda i, _: self._square(source, target, i, inner, None))
        f.loop(end, size, LANES, lambda i, _: self._square(source, target, i, inner, left))

    def _square(
        self, source: Value, target: Value, i: Value, inner: Axis, left: Value | None
    ) -> None:
        """Copy LANES of both axes, from number i of the last one; masked if `left` is given."""
        f, v, last = self.f, self.v, self.axes[-1]
        size, read = size_of(f, last.size), size_of(f, last.read)
        mask = None if left is None else v.mask_below(left)
        rows = []
        for k in range(LANES):
            number = f.add(i, k)
            if left is not None:
                number = f.smaller(number, f.sub(size, 1))
            rows.append(v.load(self._at(source, f.mul(number, read)), self.dtype, mask))
        below = f.sub(size, i)
        for k, x in enumerate(v.transpose(rows, self.dtype)):
            place = self._at(target, f.add(f.mul(size_of(f, inner.written), k), i))
            if left is None:
                v.store(x, place, self.dtype)
            else:
                there = f.value(f"icmp sgt i64 {left}, {k}")
                width = f.value(f"select i1 {there}, i64 {below}, i64 0")
                v.store(x, place, self.dtype, v.mask_below(width))

    def _at(self, base: Value, index: Value) -> Value:
        return self.f.address(base, index, self.element)
