"""Ops that find the index of an extreme, or read an index for each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.base.arguments import plain
from graphc.ir.build import Builder, Value, apply, as_value
from graphc.ir.expr import Axis, Broadcast, Expr, select
from graphc.ir.op import Array, Cotangents, Iteration, NoGradient, Op
from graphc.ir.tensor_type import (
    Dim,
    Shape,
    TensorType,
    dim_at,
    dtype_name,
    shape_text,
)
from graphc.ops.apply import with_attributes
from graphc.ops.elementwise import mul
from graphc.ops.shape import reshape

__all__ = ["one_hot", "pick"]


class ByIndex(Op, base=True):
    """The base of ops with an operand that holds an index for each row."""

    takes_pairs = True

    def check_indices(self, rows: Shape, indices: TensorType) -> None:
        """Raise ValueError unless there is one whole number for each row."""
        if indices.is_float:
            raise ValueError(
                f"the indices are {indices.dtype}, not whole numbers\n"
                "declare them with dtype='int64', or cast them: gc.cast(y, 'int64')"
            )
        if indices.dtype == "bool" or indices.shape != rows:
            raise ValueError(
                f"the indices are {indices}, there must be one for each row {shape_text(rows)}"
            )


@dataclass(frozen=True)
class OneHot(NoGradient, ByIndex):
    """A new last axis of `depth`, 1 at the index and 0 at all others."""

    is_exact = True
    roles = ("indices",)
    operations = 0
    depth: Dim
    dtype: str = "float32"

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (indices,) = ins
        self.check_indices(indices.shape, indices)
        return TensorType((*indices.shape, self.depth), self.dtype)

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.equal(ins[0][..., None], np.arange(dim_at(self.depth, 0))).astype(self.dtype)

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "elements"

    def lead(self, ins: Sequence[TensorType]) -> int:
        return max(ins[0].rank, 1)

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return ("row",)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return hit(ins[0]).cast(self.dtype)

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, Dim]:
        return {0: self.depth}


class Pick(ByIndex):
    """The score of each row at the row's index; 0 for an index that is out of range."""

    is_exact = True
    roles = ("scores", "indices")
    gradient_text = ("onehot(indices) * column(d_out)", "")
    operations = 0

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        scores, indices = ins
        if scores.rank != 2:
            raise ValueError(f"scores have shape {shape_text(scores.shape)}, pick takes (N, C)")
        self.check_indices(scores.shape[:1], indices)
        return scores.with_shape(scores.shape[:1])

    def reference(self, ins: Sequence[Array]) -> Array:
        scores, indices = ins
        hits = np.equal(indices[:, None], np.arange(scores.shape[1]))
        return np.asarray(np.where(hits, scores, 0).sum(axis=1, dtype=scores.dtype))

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "columns"

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return "each", "row"

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        scores, indices = ins
        return select(hit(indices), scores, 0).sum(axis)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        scores, indices = ins
        hot = b.apply(OneHot(scores.shape[1], scores.dtype), indices)
        return mul(hot, reshape(dout, (dout.shape[0], 1))), None

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, Dim]:
        return {1: ins[0].shape[1]}


def hit(indices: Expr) -> Expr:
    """Return an expression that is true in the column of the row's index."""
    return indices.builder.index("columns").equals(indices.cast("int64"))


@with_attributes(
    example=("(N,)", "x, 10", "(N, 10)"),
    of="int64",
    indices="Whole numbers of any shape.",
    depth="The size of the new axis.",
    dtype="The dtype of the result; by default the net's.",
    returns="Of the indices' shape with `depth` after it; rows of 0 for indices out of range.",
    raises="If the indices are not whole numbers.",
)
def one_hot(
    indices: Value, depth: int, *, dtype: str | None = None, name: str | None = None
) -> Value:
    """Return a new last axis with 1 at each index and 0 at all others."""
    b = as_value("one_hot", indices).builder
    return b.apply(OneHot(plain(depth), dtype_name(dtype or b.dtype)), indices, name=name)


@with_attributes(
    example=("(N, 10)", "x, y", "(N,)"),
    also='y = net.input("y", gc.N, dtype="int64")',
    scores="A matrix (N, C).",
    indices="For each row a whole number (N,), the column.",
    returns="Of shape (N,); 0 for indices out of range.",
    raises="If the shapes do not fit, or the indices are not whole numbers.",
)
def pick(scores: Value, indices: Value, *, name: str | None = None) -> Value:
    """Return one score of each row."""
    return apply(Pick(), scores, indices, name=name)
