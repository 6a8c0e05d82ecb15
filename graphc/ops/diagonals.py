"""Parts of matrices by their diagonals: triangles, masks, the main diagonal itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np

from graphc.base.arguments import checked_whole
from graphc.base.work import spend_bytes, spend_elements
from graphc.ir.build import Value, as_value
from graphc.ir.expr import Axis, Broadcast, Expr, call
from graphc.ir.op import Array, Iteration, NoGradient
from graphc.ir.tensor_type import Batch, TensorType
from graphc.ops.apply import with_attributes
from graphc.ops.reduce import max_
from graphc.ops.select import Where
from graphc.ops.source import constant
from graphc.ops.sums import sum_

__all__ = ["diagonal", "eye_like", "tril", "triu"]

MASKS = 3
"""The bytes that building a triangle's mask takes for each entry."""


@dataclass(frozen=True)
class Band(NoGradient):
    """Bools of the shape of x, true from the diagonal `first` to `last` of each of its matrices.

    Diagonal 0 is the main one, those above it are positive; None sets no limit.
    """

    takes_pairs = True
    is_exact = True
    roles = ("x",)
    operations = 0
    first: int | None
    last: int | None

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return x's shape as bools; raise ValueError if x has no matrices of one kind of sizes."""
        (x,) = ins
        if x.rank < 2 or len({isinstance(dim, Batch) for dim in x.shape[-2:]}) > 1:
            raise ValueError(
                f"x is {x}, not of matrices (..., rows, columns) of fixed sizes, or (..., N, N)"
            )
        return x.with_dtype("bool")

    def reference(self, ins: Sequence[Array]) -> Array:
        shape = ins[0].shape
        return np.array(np.broadcast_to(self.of_matrix(*shape[-2:]), shape))

    def of_matrix(self, rows: int, columns: int) -> Array:
        """Return the bools of one matrix."""
        row, column = np.arange(rows)[:, None], np.arange(columns)
        inside = np.ones((rows, columns), bool)
        if self.first is not None:
            inside &= column >= row + self.first
        if self.last is not None:
            inside &= column <= row + self.last
        return inside

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "elements" if ins[0].rank == 2 else "call"

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return ("each",)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        """Return whether the column less the row is within the band."""
        builder = ins[0].builder
        beyond = builder.index("columns") - builder.index("rows")
        if self.first == self.last and self.first is not None:
            return beyond.equals(self.first)
        low = None if self.first is None else beyond >= self.first
        high = None if self.last is None else beyond <= self.last
        if low is None or high is None:
            return low or high or beyond.equals(beyond)
        return call("and", low, high)


@with_attributes(
    example=("(N, 3, 3)", "x", "(N, 3, 3)"),
    x="Matrices (..., rows, columns) of fixed sizes, or (..., N, N).",
    returns="Bools of x's shape.",
    raises="If x has no matrices.",
)
def eye_like(x: Value, *, name: str | None = None) -> Value:
    """Return bools of x's shape that are true on the main diagonal of each of its matrices."""
    x = as_value("eye_like", x)
    return x.builder.apply(Band(0, 0), x, name=name)


@with_attributes(
    example=("(N, 3, 3)", "x", "(N, 3)"),
    x="Square matrices (..., D, D), such as (N, N).",
    returns="Of shape (..., D) and x's dtype.",
    raises="If x has no square matrices.",
)
def diagonal(x: Value, *, name: str | None = None) -> Value:
    """Return the main diagonal of each matrix of x."""
    x = as_value("diagonal", x)
    if x.type.rank < 2 or x.shape[-2] != x.shape[-1]:
        raise x.builder.error(Where(), f"x is {x.type}, but diagonal takes square matrices", (x,))
    with x.builder.all_or_nothing():
        inside = eye_like(x)
        own = x.builder.apply(Where(), inside, x, constant(x.builder, 0, x.dtype))
        return (max_ if x.dtype == "bool" else sum_)(own, -1, name=name)


@with_attributes(
    example=("(N, 3, 3)", "x", "(N, 3, 3)"),
    x="Matrices (..., rows, columns) of fixed sizes, or (..., N, N).",
    diagonal="The last diagonal that is kept: 0 is the main one, those above it are positive.",
)
def tril(x: Value, diagonal: SupportsIndex = 0, *, name: str | None = None) -> Value:
    """Return the lower triangles of matrices, up to a diagonal, and 0 above it."""
    return _inside("tril", x, Band(None, checked_whole("tril: diagonal", diagonal, None)), name)


@with_attributes(
    example=("(N, 3, 3)", "x", "(N, 3, 3)"),
    x="Matrices (..., rows, columns) of fixed sizes, or (..., N, N).",
    diagonal="The first diagonal that is kept: 0 is the main one, those above it are positive.",
)
def triu(x: Value, diagonal: SupportsIndex = 0, *, name: str | None = None) -> Value:
    """Return the upper triangles of matrices, from a diagonal on, and 0 below it."""
    return _inside("triu", x, Band(checked_whole("triu: diagonal", diagonal, None), None), name)


def _inside(call: str, x: Value, band: Band, name: str | None) -> Value:
    """Return the entries within a band, and 0 for all others."""
    x = as_value(call, x)
    with x.builder.all_or_nothing():
        inside, zero = _mask(x, band), constant(x.builder, 0, x.dtype)
        return x.builder.apply(Where(), inside, x, zero, name=name)


def _mask(x: Value, band: Band) -> Value:
    """Return bools for a band of x; those of fixed sizes are constants, of one matrix."""
    sizes = x.shape[-2:]
    if len(sizes) < 2 or any(isinstance(dim, Batch) for dim in sizes):
        return x.builder.apply(band, x)
    rows, columns = (dim for dim in sizes if isinstance(dim, int))
    spend_elements(rows * columns)
    spend_bytes(MASKS * rows * columns)
    return constant(x.builder, band.of_matrix(rows, columns))
