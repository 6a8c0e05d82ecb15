"""The index of the largest or smallest number, and choices by an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np

from graphc.base.arguments import plain
from graphc.ir.build import Builder, Value, apply, as_value
from graphc.ir.expr import Axis, Broadcast, Expr, select
from graphc.ir.op import Array, Iteration, Op
from graphc.ir.tensor_type import (
    Shape,
    TensorType,
    check_entries,
    dtype_name,
    normal_axis,
    shape_text,
)
from graphc.ops.elementwise import mul
from graphc.ops.reduce import below_largest, reduced_shape
from graphc.ops.shape import reshape


class ExtremeIndex(Op):
    """The index of an extreme over an axis, the first of equals; int64, no gradient."""

    roles = ("x",)
    gradient_text = ("",)
    axis: int

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (x,) = ins
        axis = normal_axis(self.axis, x.rank)
        check_entries(x.shape, (axis,))
        return TensorType(reduced_shape(x.shape, (axis,), keepdims=False), "int64")

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (None,)


@dataclass(frozen=True)
class Argmax(ExtremeIndex):
    """The index of the largest over an axis, the first of equals; int64, no gradient."""

    axis: int = -1

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(ins[0].argmax(axis=self.axis))

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return below_largest(ins[0], (self.axis,))


@dataclass(frozen=True)
class Argmin(ExtremeIndex):
    """The index of the smallest over an axis, the first of equals; int64, no gradient."""

    axis: int = -1

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(ins[0].argmin(axis=self.axis))

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return below_largest(-ins[0], (self.axis,))


class ByIndex(Op):
    """An op with one operand that holds an index for each row."""

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
class OneHot(ByIndex):
    """A new last axis of `depth`, 1 at the index and 0 at all others."""

    is_exact = True
    name = "one_hot"
    roles = ("indices",)
    gradient_text = ("",)
    depth: int
    dtype: str = "float32"

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (indices,) = ins
        self.check_indices(indices.shape, indices)
        return TensorType((*indices.shape, self.depth), self.dtype)

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.eye(self.depth, dtype=self.dtype)[ins[0]]

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "elements" if ins[0].rank == 1 else "call"

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return ("row",)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return hit(ins[0]).cast(self.dtype)

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (None,)

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, int]:
        return {0: self.depth}


class Pick(ByIndex):
    """From each row of scores, the score at the row's index."""

    is_exact = True
    roles = ("scores", "indices")
    gradient_text = ("onehot(indices) * column(d_out)", "")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        scores, indices = ins
        if scores.rank != 2:
            raise ValueError(f"scores have shape {shape_text(scores.shape)}, pick takes (N, C)")
        self.check_indices(scores.shape[:1], indices)
        return scores.with_shape(scores.shape[:1])

    def reference(self, ins: Sequence[Array]) -> Array:
        scores, indices = ins
        return np.asarray(scores[np.arange(len(indices)), indices])

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "columns"

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return "each", "row"

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        scores, indices = ins
        return select(hit(indices), scores, 0).sum(axis)

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        scores, indices = ins
        depth = scores.shape[1]
        assert isinstance(depth, int)
        hot = b.apply(OneHot(depth, scores.dtype), indices)
        return mul(hot, reshape(dout, (dout.shape[0], 1))), None

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, int]:
        width = ins[0].shape[1]
        return {1: width} if isinstance(width, int) else {}


def hit(indices: Expr) -> Expr:
    """Return whether the column is the one that the row's index names."""
    return indices.builder.index("columns").equals(indices.cast("int64"))


def argmax(
    x: Value,
    axis: SupportsIndex = -1,
    keepdims: bool = False,
    *,
    last: bool = False,
    name: str | None = None,
) -> Value:
    """Return the index of the largest over an axis, as int64; of equals the first, or `last`."""
    return _index_of(Argmax(plain(axis)), x, keepdims, last, name)


def argmin(
    x: Value,
    axis: SupportsIndex = -1,
    keepdims: bool = False,
    *,
    last: bool = False,
    name: str | None = None,
) -> Value:
    """Return the index of the smallest over an axis, as int64; of equals the first, or `last`."""
    return _index_of(Argmin(plain(axis)), x, keepdims, last, name)


def _index_of(op: Argmax | Argmin, x: Value, keepdims: bool, last: bool, name: str | None) -> Value:
    if not keepdims and not last:
        return apply(op, x, name=name)
    from graphc.ops.arrange import fixed_sizes, flip

    with as_value(op.name, x).builder.all_or_nothing():
        found = apply(op, flip(x, op.axis) if last else x)
        kept = reduced_shape(x.shape, (normal_axis(op.axis, x.type.rank),), keepdims)
        if not last:
            return reshape(found, kept, name=name)
        (size,) = fixed_sizes(op, x, op.axis)
        return reshape(size - 1 - found, kept, name=name)


def one_hot(
    indices: Value, depth: int, *, dtype: str | None = None, name: str | None = None
) -> Value:
    """Return a new last axis of `depth`, 1 at the index and 0 at all others.

    It is in the net's dtype or in `dtype`.
    """
    b = as_value("one_hot", indices).builder
    return b.apply(OneHot(plain(depth), dtype_name(dtype or b.dtype)), indices, name=name)


def pick(scores: Value, indices: Value, *, name: str | None = None) -> Value:
    """Return one score from each row: scores (N, C), indices (N,) -> (N,)."""
    return apply(Pick(), scores, indices, name=name)
