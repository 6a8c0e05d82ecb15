"""Products, logarithms of sums, and norms over axes, made of other ops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphc.ir.build import Value, as_value
from graphc.ops.arrange import axes_of, fixed_sizes
from graphc.ops.concat import concat
from graphc.ops.elementwise import add, mul, sub
from graphc.ops.functions import abs_, exp, log, sqrt
from graphc.ops.logic import isfinite
from graphc.ops.reduce import Axes, broadcast_to, max_, reduced_shape, sum_
from graphc.ops.select import not_equal, where
from graphc.ops.shape import reshape, stop_gradient, transpose
from graphc.ops.slicing import Cut, Slice
from graphc.ops.source import constant


def prod(x: Value, axis: Axes = None, keepdims: bool = False, *, name: str | None = None) -> Value:
    """Return the product over an axis, several, or all, which have fixed sizes.

    Halves are multiplied with halves, so that gradients of any order are right at 0, too.
    """
    x = as_value("prod", x)
    chosen = range(x.type.rank) if axis is None else axis
    axes, op = axes_of(Slice(()), x, chosen), Slice(())
    size = int(np.prod(fixed_sizes(op, x, chosen)))
    rest = tuple(i for i in range(x.type.rank) if i not in axes)
    kept = tuple(x.shape[i] for i in rest)
    if size == 0:
        one = constant(x.builder, 1, x.dtype)
        return broadcast_to(one, reduced_shape(x.shape, axes, keepdims), name=name)
    with x.builder.all_or_nothing():
        order = (*rest, *axes)
        moved = x if order == tuple(range(x.type.rank)) else transpose(x, order)
        flat = reshape(moved, (*kept, size))
        while size > 1:
            half = size // 2
            halves = mul(_part(flat, 0, half), _part(flat, half, 2 * half))
            flat = concat([halves, _part(flat, size - 1, size)]) if size % 2 else halves
            size -= half
        return reshape(flat, reduced_shape(x.shape, axes, keepdims), name=name)


def _part(x: Value, start: int, stop: int) -> Value:
    cut: Cut = (x.type.rank - 1, start, stop, 1)
    return x.builder.apply(Slice((cut,)), x)


def logsumexp(
    x: Value, axis: Axes = None, keepdims: bool = False, *, name: str | None = None
) -> Value:
    """Return log(sum(exp(x))) over an axis, several, or all, without overflow for any x."""
    x = as_value("logsumexp", x)
    with x.builder.all_or_nothing():
        largest = stop_gradient(max_(x, axis, keepdims=True))
        shift = where(isfinite(largest), largest, 0.0)
        total = sum_(exp(sub(x, shift)), axis, keepdims=keepdims)
        return add(log(total), reshape(shift, total.shape), name=name)


def sum_squares(
    x: Value, axis: Axes = None, keepdims: bool = False, *, name: str | None = None
) -> Value:
    """Return the sum of the squares over an axis, several, or all."""
    return _of_each(lambda v: mul(v, v), x, axis, keepdims, name)


def l1_norm(
    x: Value, axis: Axes = None, keepdims: bool = False, *, name: str | None = None
) -> Value:
    """Return the sum of the absolute values over an axis, several, or all."""
    return _of_each(abs_, x, axis, keepdims, name)


def l2_norm(
    x: Value, axis: Axes = None, keepdims: bool = False, *, name: str | None = None
) -> Value:
    """Return the root of the sum of the squares over an axis, several, or all.

    At 0 its gradient, of any order, is 0.
    """
    with as_value("l2_norm", x).builder.all_or_nothing():
        total = sum_squares(x, axis, keepdims)
        some = not_equal(total, 0.0)
        return where(some, sqrt(where(some, total, 1.0)), 0.0, name=name)


def _of_each(
    function: Callable[[Value], Value], x: Value, axis: Axes, keepdims: bool, name: str | None
) -> Value:
    with as_value("sum", x).builder.all_or_nothing():
        return sum_(function(x), axis, keepdims, name=name)
