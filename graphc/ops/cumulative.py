"""Reductions built from other ops, and cumulative sums and products."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np

from graphc.base.arguments import plain
from graphc.ir.build import Builder, Value, as_value
from graphc.ir.op import Array, Cotangents, Op
from graphc.ir.tensor_type import TensorType, normal_axis
from graphc.ops.apply import with_attributes
from graphc.ops.arrange import axes_of, cut, fixed_sizes, flip
from graphc.ops.elementwise import add, mul, sub
from graphc.ops.functions import abs_, exp, log, sqrt
from graphc.ops.logic import isfinite
from graphc.ops.reduce import max_
from graphc.ops.select import not_equal, where
from graphc.ops.shape import reshape, stop_gradient, transpose
from graphc.ops.slicing import Slice, concat
from graphc.ops.source import constant
from graphc.ops.sums import Axes, broadcast_to, over_axes, reduced_shape, sum_

__all__ = ["cumprod", "cumsum", "l1_norm", "l2_norm", "logsumexp", "prod", "sum_squares"]


@over_axes
def prod(x: Value, axis: Axes = None, keepdims: bool = False, *, name: str | None = None) -> Value:
    """Return the product over axes of fixed sizes.

    Halves are multiplied with halves without division: gradients of any order are right at 0.
    """
    x = as_value("prod", x)
    op, chosen = Slice(()), range(x.type.rank) if axis is None else axis
    axes, size = axes_of(op, x, chosen), math.prod(fixed_sizes(op, x, chosen))
    rest = tuple(i for i in range(x.type.rank) if i not in axes)
    kept = tuple(x.shape[i] for i in rest)
    if size == 0:
        one = constant(x.builder, 1, x.dtype)
        return broadcast_to(one, reduced_shape(x.shape, axes, keepdims), name=name)
    with x.builder.all_or_nothing():
        order = (*rest, *axes)
        moved = x if order == tuple(range(x.type.rank)) else transpose(x, order)
        flat, last = reshape(moved, (*kept, size)), len(kept)
        while size > 1:
            half = size // 2
            halves = mul(cut(flat, last, 0, half), cut(flat, last, half, 2 * half))
            flat = concat([halves, cut(flat, last, size - 1, size)]) if size % 2 else halves
            size -= half
        return reshape(flat, reduced_shape(x.shape, axes, keepdims), name=name)


@over_axes
def logsumexp(
    x: Value, axis: Axes = None, keepdims: bool = False, *, name: str | None = None
) -> Value:
    """Return log(sum(exp(x))) over an axis, several, or all, without overflow for any x."""
    x = as_value("logsumexp", x)
    with x.builder.all_or_nothing():
        largest = stop_gradient(max_(x, axis, keepdims=True))  # the shift has no gradient
        shift = where(isfinite(largest), largest, 0.0)  # inf - inf would be NaN
        total = sum_(exp(sub(x, shift)), axis, keepdims=keepdims)
        return add(log(total), reshape(shift, total.shape), name=name)


@over_axes
def sum_squares(
    x: Value, axis: Axes = None, keepdims: bool = False, *, name: str | None = None
) -> Value:
    """Return the sum of the squares over an axis, several, or all."""
    return _of_each(lambda v: mul(v, v), x, axis, keepdims, name)


@over_axes
def l1_norm(
    x: Value, axis: Axes = None, keepdims: bool = False, *, name: str | None = None
) -> Value:
    """Return the sum of the absolute values over an axis, several, or all."""
    return _of_each(abs_, x, axis, keepdims, name)


@over_axes
def l2_norm(
    x: Value, axis: Axes = None, keepdims: bool = False, *, name: str | None = None
) -> Value:
    """Return the root of the sum of the squares over an axis, several, or all.

    At 0 its gradient, of any order, is 0.
    """
    with as_value("l2_norm", x).builder.all_or_nothing():
        total = sum_squares(x, axis, keepdims)
        some = not_equal(total, 0.0)  # sqrt has no finite slope at 0
        return where(some, sqrt(where(some, total, 1.0)), 0.0, name=name)


def _of_each(
    function: Callable[[Value], Value], x: Value, axis: Axes, keepdims: bool, name: str | None
) -> Value:
    """Return the sum of a function of each element."""
    with as_value("sum", x).builder.all_or_nothing():
        return sum_(function(x), axis, keepdims, name=name)


@dataclass(frozen=True)
class Cumsum(Op):
    """The cumulative sum over `axis`; without the entry itself if `exclusive`.

    With `reverse`, it runs from the end.
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
        """Compute the sums in the op's direction, shifted by one place if exclusive."""
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

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (b.apply(Cumsum(self.axis, self.exclusive, not self.reverse), dout),)


@with_attributes(
    exclusive="True to leave the entry itself out.",
    reverse="True to begin at the end of the axis.",
)
def cumsum(
    x: Value,
    axis: SupportsIndex = -1,
    *,
    exclusive: bool = False,
    reverse: bool = False,
    name: str | None = None,
) -> Value:
    """Return the cumulative sum over an axis."""
    x = as_value("cumsum", x)
    return x.builder.apply(Cumsum(plain(axis), bool(exclusive), bool(reverse)), x, name=name)


@with_attributes(
    axis="The axis, of fixed size; numbers below 0 count from the last one.",
    exclusive="True to leave the entry itself out.",
    reverse="True to begin at the end of the axis.",
)
def cumprod(
    x: Value,
    axis: SupportsIndex = -1,
    *,
    exclusive: bool = False,
    reverse: bool = False,
    name: str | None = None,
) -> Value:
    """Return the cumulative product over an axis.

    It takes log2(size) steps, each of which multiplies by the entry 1, 2, 4, ... places before
    (Hillis and Steele 1986, doi:10.1145/7902.7903), so that gradients are right at 0, too.
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
            start, rest = cut(found, place, 0, distance), cut(found, place, distance, size)
            before = cut(found, place, 0, size - distance)
            found = concat([start, mul(rest, before)], place)
            distance *= 2
        found = flip(found, place) if reverse else found
        return reshape(found, x.shape, name=name)


def _shifted(x: Value, axis: int, size: int) -> Value:
    """Return a 1, followed by all entries but the last."""
    shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    ones = broadcast_to(constant(x.builder, 1, x.dtype), shape)
    return concat([ones, cut(x, axis, 0, size - 1)], axis) if size > 1 else ones
