"""The index of the largest or smallest number of an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np

from graphc.base.arguments import plain
from graphc.ir.build import Value, apply, as_value
from graphc.ir.expr import Axis, Broadcast, Expr, call, select
from graphc.ir.op import Array, Iteration, NoGradient
from graphc.ir.tensor_type import (
    Dim,
    TensorType,
    check_entries,
    normal_axis,
)
from graphc.ops.apply import with_attributes
from graphc.ops.arrange import fixed_sizes, flip
from graphc.ops.reduce import below_largest
from graphc.ops.shape import reshape
from graphc.ops.sums import reduced_shape

__all__ = ["argmax", "argmin"]

EXACT = 2**24
"""The largest whole number up to which all are float32."""


@dataclass(frozen=True)
class ExtremeIndex(NoGradient, base=True):
    """The base of argmax and argmin: int64 indices without a gradient."""

    takes_pairs = True
    roles = ("x",)
    axis: int = -1

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (x,) = ins
        axis = normal_axis(self.axis, x.rank)
        check_entries(x.shape, (axis,))
        return TensorType(reduced_shape(x.shape, (axis,), keepdims=False), "int64")

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        """Return "rows" or "columns" for the first or last axis of floats; else "call"."""
        (x,) = ins
        axis, size = self._place(x)
        if x.rank < 2 or not x.is_float or not isinstance(size, int) or size > EXACT:
            return "call"
        return {0: "rows", x.rank - 1: "columns"}.get(axis, "call")  # type: ignore[return-value]

    def lead(self, ins: Sequence[TensorType]) -> int:
        (x,) = ins
        return x.rank - 1 if self._place(x)[0] else 1

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return ("each",)

    def _place(self, x: TensorType) -> tuple[int, Dim]:
        axis = normal_axis(self.axis, x.rank)
        return axis, x.shape[axis]

    def first_largest(self, x: Expr, axis: Axis) -> Expr:
        """Return the index of the first NaN, else of the first of the largest elements."""
        hit = call("or", call("not_equal", x, x), call("equal", x, x.max(axis)))
        back = -x.builder.index(axis).cast(x.dtype)
        return (-select(hit, back, float("-inf")).max(axis)).cast("int64")


class Argmax(ExtremeIndex):
    """The index of the largest entry over an axis; of equal ones the first."""

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(ins[0].argmax(axis=self.axis))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return self.first_largest(ins[0], axis)

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return below_largest(ins[0], (self.axis,))


class Argmin(ExtremeIndex):
    """The index of the smallest entry over an axis; of equal ones the first."""

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(ins[0].argmin(axis=self.axis))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return self.first_largest(-ins[0], axis)

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return below_largest(-ins[0], (self.axis,))


_index_along = with_attributes(
    example=("(N, 10)", "x", "(N,)"),
    x="Numbers of any shape.",
    keepdims="True to keep the axis, with size 1.",
    last="True to return the last of equal numbers in place of the first.",
    returns="Of int64, without the axis.  No gradient flows through it.",
    raises="If x does not have the axis, or the axis has no entries.",
)


@_index_along
def argmax(
    x: Value,
    axis: SupportsIndex = -1,
    keepdims: bool = False,
    *,
    last: bool = False,
    name: str | None = None,
) -> Value:
    """Return the index of the largest number of an axis; of equal ones the first."""
    return _index_of(Argmax(plain(axis)), x, keepdims, last, name)


@_index_along
def argmin(
    x: Value,
    axis: SupportsIndex = -1,
    keepdims: bool = False,
    *,
    last: bool = False,
    name: str | None = None,
) -> Value:
    """Return the index of the smallest number of an axis; of equal ones the first."""
    return _index_of(Argmin(plain(axis)), x, keepdims, last, name)


def _index_of(op: Argmax | Argmin, x: Value, keepdims: bool, last: bool, name: str | None) -> Value:
    if not keepdims and not last:
        return apply(op, x, name=name)
    with as_value(op.name, x).builder.all_or_nothing():
        found = apply(op, flip(x, op.axis) if last else x)
        kept = reduced_shape(x.shape, (normal_axis(op.axis, x.type.rank),), keepdims)
        if not last:
            return reshape(found, kept, name=name)
        (size,) = fixed_sizes(op, x, op.axis)
        return reshape(size - 1 - found, kept, name=name)
