"""Whole numbers near a number; no gradient flows through them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.build import Builder, Value, apply
from graphc.ir.expr import Axis, Expr, call
from graphc.ir.op import Array
from graphc.ops.elementwise import Unary


def distances_to_whole(x: Array) -> Array:
    """Return the signed distance of each number to the nearest whole one."""
    return np.asarray(x - np.rint(x))


class Rounding(Unary):
    """A whole number near x, in x's dtype."""

    is_exact = True
    gradient_text = ("",)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return call(self.name, ins[0])

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (None,)

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return distances_to_whole(ins[0])


class Floor(Rounding):
    """The largest whole number that is not above x."""

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(np.floor(ins[0]))


class Ceil(Rounding):
    """The smallest whole number that is not below x."""

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(np.ceil(ins[0]))


class Round(Rounding):
    """The nearest whole number; of two equally near, the even one."""

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(np.rint(ins[0]))

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return distances_to_whole(ins[0] - 0.5)


def floor(x: Value, *, name: str | None = None) -> Value:
    """Return the largest whole number that is not above x; its gradient is zero."""
    return apply(Floor(), x, name=name)


def ceil(x: Value, *, name: str | None = None) -> Value:
    """Return the smallest whole number that is not below x; its gradient is zero."""
    return apply(Ceil(), x, name=name)


def round_(x: Value, *, name: str | None = None) -> Value:
    """Return the nearest whole number, of two the even one; its gradient is zero."""
    return apply(Round(), x, name=name)
