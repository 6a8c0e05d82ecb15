"""Running sums and products along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np

from graphc.base.arguments import plain
from graphc.ir.build import Builder, Value, as_value
from graphc.ir.op import Array, Op
from graphc.ir.tensor_type import TensorType, normal_axis
from graphc.ops.arrange import fixed_sizes, flip
from graphc.ops.concat import concat
from graphc.ops.elementwise import mul
from graphc.ops.reduce import broadcast_to
from graphc.ops.shape import reshape
from graphc.ops.slicing import Cut, Slice
from graphc.ops.source import constant


@dataclass(frozen=True)
class Cumsum(Op):
    """The sums of the entries up to each one along `axis`, itself included unless `exclusive`.

    With `reverse`, the sums are of the entries from each one on.
    """

    roles = ("x",)
    gradient_text = ("cumsum(d_out, axis, exclusive, not reverse)",)
    axis: int
    exclusive: bool = False
    reverse: bool = False

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (x,) = ins
        if x.dtype == "bool":
            raise ValueError("x is bool, cumsum takes numbers\ncast it: gc.cast(x, 'int64')")
        normal_axis(self.axis, x.rank)
        return x

    def reference(self, ins: Sequence[Array]) -> Array:
        x = self.forward(ins[0])
        sums = np.cumsum(x, axis=0, dtype=x.dtype)
        if self.exclusive:
            sums = np.concatenate([np.zeros_like(sums[:1]), sums[:-1]])
        out = np.empty_like(ins[0])
        self.forward(out)[...] = sums
        return out

    def forward(self, x: Array) -> Array:
        """Return a view of x whose sums run over the first axis, from the first entry on."""
        moved = np.moveaxis(x, self.axis, 0)
        return moved[::-1] if self.reverse else moved

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (b.apply(Cumsum(self.axis, self.exclusive, not self.reverse), dout),)


def cumsum(
    x: Value,
    axis: SupportsIndex = -1,
    *,
    exclusive: bool = False,
    reverse: bool = False,
    name: str | None = None,
) -> Value:
    """Return the sums of the entries up to each one along an axis.

    `exclusive` leaves the entry itself out, `reverse` begins at the end.
    """
    x = as_value("cumsum", x)
    return x.builder.apply(Cumsum(plain(axis), bool(exclusive), bool(reverse)), x, name=name)


def cumprod(
    x: Value,
    axis: SupportsIndex = -1,
    *,
    exclusive: bool = False,
    reverse: bool = False,
    name: str | None = None,
) -> Value:
    """Return the products of the entries up to each one along an axis, of fixed size.

    This takes log2(size) steps, each of which multiplies by the entry 1, 2, 4, ... places before
    (Hillis and Steele 1986), so that gradients are right at 0, too.  Options as in `cumsum`.
    """
    x = as_value("cumprod", x)
    (size,) = fixed_sizes(Slice(()), x, axis)
    place = normal_axis(axis, x.type.rank)
    with x.builder.all_or_nothing():
        found = flip(x, place) if reverse else x
        if exclusive:
            found = _shifted(found, place, size)
        distance = 1
        while distance < size:
            start, rest = _part(found, place, 0, distance), _part(found, place, distance, size)
            before = _part(found, place, 0, size - distance)
            found = concat([start, mul(rest, before)], place)
            distance *= 2
        found = flip(found, place) if reverse else found
        return reshape(found, x.shape, name=name)


def _shifted(x: Value, axis: int, size: int) -> Value:
    """Return a 1, followed by all entries but the last."""
    shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    ones = broadcast_to(constant(x.builder, 1, x.dtype), shape)
    return concat([ones, _part(x, axis, 0, size - 1)], axis) if size > 1 else ones


def _part(x: Value, axis: int, start: int, stop: int) -> Value:
    cut: Cut = (axis, start, stop, 1)
    return x.builder.apply(Slice((cut,)), x)
