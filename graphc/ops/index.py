"""Ops that find indices of an axis, such as argmax and topk, or read one index a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np

from graphc.base.arguments import plain
from graphc.ir.build import Builder, Value, apply, as_value
from graphc.ir.expr import Axis, Broadcast, Expr, select
from graphc.ir.op import Array, Cotangents, Iteration, NoGradient, Op
from graphc.ir.tensor_type import (
    Batch,
    Shape,
    TensorType,
    check_entries,
    dtype_name,
    normal_axis,
    shape_text,
)
from graphc.ops.arrange import fixed_sizes, flip
from graphc.ops.elementwise import mul
from graphc.ops.reduce import below_largest, reduced_shape
from graphc.ops.scatter import GatherElements
from graphc.ops.shape import reshape

__all__ = ["argmax", "argmin", "argsort", "one_hot", "pick", "sort", "topk"]


@dataclass(frozen=True)
class ExtremeIndex(NoGradient, base=True):
    """The base of argmax and argmin: int64 indices without a gradient."""

    roles = ("x",)
    axis: int = -1

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (x,) = ins
        axis = normal_axis(self.axis, x.rank)
        check_entries(x.shape, (axis,))
        return TensorType(reduced_shape(x.shape, (axis,), keepdims=False), "int64")


class Argmax(ExtremeIndex):
    """The index of the largest entry over an axis; of equal ones the first."""

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(ins[0].argmax(axis=self.axis))

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return below_largest(ins[0], (self.axis,))


class Argmin(ExtremeIndex):
    """The index of the smallest entry over an axis; of equal ones the first."""

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(ins[0].argmin(axis=self.axis))

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return below_largest(-ins[0], (self.axis,))


class ByIndex(Op, base=True):
    """The base of ops with an operand that holds an index for each row."""

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
    depth: int
    dtype: str = "float32"

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (indices,) = ins
        self.check_indices(indices.shape, indices)
        return TensorType((*indices.shape, self.depth), self.dtype)

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.equal(ins[0][..., None], np.arange(self.depth)).astype(self.dtype)

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "elements" if ins[0].rank == 1 else "call"

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return ("row",)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return hit(ins[0]).cast(self.dtype)

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, int]:
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
        depth = scores.shape[1]
        assert isinstance(depth, int)
        hot = b.apply(OneHot(depth, scores.dtype), indices)
        return mul(hot, reshape(dout, (dout.shape[0], 1))), None

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, int]:
        width = ins[0].shape[1]
        return {1: width} if isinstance(width, int) else {}


def hit(indices: Expr) -> Expr:
    """Return an expression that is true in the column of the row's index."""
    return indices.builder.index("columns").equals(indices.cast("int64"))


def argmax(
    x: Value,
    axis: SupportsIndex = -1,
    keepdims: bool = False,
    *,
    last: bool = False,
    name: str | None = None,
) -> Value:
    """Return the index of the largest number of an axis; of equal ones the first.

    Parameters
    ----------
    x
        Numbers of any shape.
    axis
        The axis; numbers below 0 count from the last.
    keepdims
        Whether the result keeps the axis with size 1.
    last
        Whether to return the last of equal numbers in place of the first.
    name
        The name of the node.

    Returns
    -------
    Value
        Of int64, without the axis.  No gradient flows through it.

    Raises
    ------
    GraphError
        If x does not have the axis, or the axis has no entries.

    Examples
    --------
    >>> net = gc.Net("example")
    >>> gc.argmax(net.input("x", (gc.N, 10))).shape
    (N,)
    """
    return _index_of(Argmax(plain(axis)), x, keepdims, last, name)


def argmin(
    x: Value,
    axis: SupportsIndex = -1,
    keepdims: bool = False,
    *,
    last: bool = False,
    name: str | None = None,
) -> Value:
    """Return the index of the smallest number of an axis; of equal ones the first.

    Parameters
    ----------
    x
        Numbers of any shape.
    axis
        The axis; numbers below 0 count from the last.
    keepdims
        Whether the result keeps the axis with size 1.
    last
        Whether to return the last of equal numbers in place of the first.
    name
        The name of the node.

    Returns
    -------
    Value
        Of int64, without the axis.  No gradient flows through it.

    Raises
    ------
    GraphError
        If x does not have the axis, or the axis has no entries.

    Examples
    --------
    >>> net = gc.Net("example")
    >>> gc.argmin(net.input("x", (gc.N, 10))).shape
    (N,)
    """
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


def one_hot(
    indices: Value, depth: int, *, dtype: str | None = None, name: str | None = None
) -> Value:
    """Return a new last axis with 1 at each index and 0 elsewhere.

    Parameters
    ----------
    indices
        Whole numbers of any shape.
    depth
        The size of the new axis.
    dtype
        The dtype of the result; by default the net's.
    name
        The name of the node.

    Returns
    -------
    Value
        Of the indices' shape with `depth` after it; rows of 0 for indices out of range.

    Raises
    ------
    GraphError
        If the indices are not whole numbers.

    Examples
    --------
    >>> net = gc.Net("example")
    >>> gc.one_hot(net.input("y", (gc.N,), dtype="int64"), 10).shape
    (N, 10)
    """
    b = as_value("one_hot", indices).builder
    return b.apply(OneHot(plain(depth), dtype_name(dtype or b.dtype)), indices, name=name)


def pick(scores: Value, indices: Value, *, name: str | None = None) -> Value:
    """Return one score of each row.

    Parameters
    ----------
    scores
        A matrix (N, C).
    indices
        For each row a whole number (N,), the column.
    name
        The name of the node.

    Returns
    -------
    Value
        Of shape (N,); 0 for indices out of range.

    Raises
    ------
    GraphError
        If the shapes do not fit, or the indices are not whole numbers.

    Examples
    --------
    >>> net = gc.Net("example")
    >>> scores, y = net.input("x", (gc.N, 10)), net.input("y", (gc.N,), dtype="int64")
    >>> gc.pick(scores, y).shape
    (N,)
    """
    return apply(Pick(), scores, indices, name=name)


_WIDE = ("int64", "uint64")


@dataclass(frozen=True)
class TopK(NoGradient):
    """The indices (int64) of the `k` largest over `axis` in order, or of the smallest.

    Equal numbers keep their order, and NaN is last.
    """

    name = "topk"
    roles = ("x",)
    k: int
    axis: int = -1
    largest: bool = True

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (x,) = ins
        axis = normal_axis(self.axis, x.rank)
        size = x.shape[axis]
        if isinstance(size, Batch):
            raise ValueError(f"axis {axis} of {shape_text(x.shape)} is the batch's")
        if x.dtype in _WIDE:
            raise ValueError(
                f"x is {x.dtype}, topk takes floats and smaller whole numbers\n"
                "cast it: gc.cast(x, 'float64') tells numbers up to 2**53 apart"
            )
        if not 1 <= self.k <= size:
            raise ValueError(f"k is {self.k}, axis {axis} has {size} entries")
        return TensorType((*x.shape[:axis], self.k, *x.shape[axis + 1 :]), "int64")

    def reference(self, ins: Sequence[Array]) -> Array:
        (x,) = ins
        keys = x if x.dtype.kind == "f" else x.astype(np.float64)  # -x of integers may wrap
        order = np.argsort(-keys if self.largest else keys, axis=self.axis, kind="stable")
        return np.take(order, range(self.k), axis=self.axis)

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return np.diff(np.sort(ins[0], axis=self.axis), axis=self.axis)


def topk(
    x: Value,
    k: SupportsIndex,
    axis: SupportsIndex = -1,
    *,
    largest: bool = True,
    name: str | None = None,
) -> tuple[Value, Value]:
    """Return the largest numbers of an axis in order, or the smallest, and their indices.

    Equal numbers keep their order; NaN counts as less than any number, or with
    `largest=False` as more.  Gradients flow to the chosen numbers.

    Parameters
    ----------
    x
        Floats, or whole numbers of at most 32 bits.
    k
        How many.
    axis
        The axis; numbers below 0 count from the last.
    largest
        Whether the largest are wanted.
    name
        The name of the node.

    Returns
    -------
    Value, Value
        The numbers, with `k` entries in `axis`, and their int64 indices, named `<name>.indices`.

    Raises
    ------
    GraphError
        If the axis has fewer than k entries, or is the batch's.

    Examples
    --------
    >>> net = gc.Net("example")
    >>> values, indices = gc.topk(net.input("x", (gc.N, 10)), 3)
    >>> values.shape, indices.dtype
    ((N, 3), 'int64')
    """
    x = as_value("topk", x)
    op = TopK(plain(k), plain(axis), bool(largest))
    return _ordered(x, op, name)


def sort(
    x: Value, axis: SupportsIndex = -1, *, descending: bool = False, name: str | None = None
) -> Value:
    """Return x with the numbers of an axis in ascending order.

    NaN comes last.

    Parameters
    ----------
    x
        Floats, or whole numbers of at most 32 bits.
    axis
        The axis; numbers below 0 count from the last.
    descending
        Whether the largest come first.
    name
        The name of the node.

    Returns
    -------
    Value
        Of x's shape and dtype.

    Raises
    ------
    GraphError
        If the axis is the batch's.

    Examples
    --------
    >>> net = gc.Net("example")
    >>> gc.sort(net.input("x", (gc.N, 10))).shape
    (N, 10)
    """
    return _ordered(as_value("sort", x), _all(x, axis, descending), name)[0]


def argsort(
    x: Value, axis: SupportsIndex = -1, *, descending: bool = False, name: str | None = None
) -> Value:
    """Return the indices that sort the numbers of an axis.

    Equal numbers keep their order; NaN comes last.

    Parameters
    ----------
    x
        Floats, or whole numbers of at most 32 bits.
    axis
        The axis; numbers below 0 count from the last.
    descending
        Whether the largest come first.
    name
        The name of the node.

    Returns
    -------
    Value
        Of x's shape, int64.

    Raises
    ------
    GraphError
        If the axis is the batch's.

    Examples
    --------
    >>> net = gc.Net("example")
    >>> gc.argsort(net.input("x", (gc.N, 10))).dtype
    'int64'
    """
    return as_value("argsort", x).builder.apply(_all(x, axis, descending), x, name=name)


def _all(x: Value, axis: SupportsIndex, descending: bool) -> TopK:
    (size,) = fixed_sizes(TopK(1), x, axis)
    return TopK(size, plain(axis), bool(descending))


def _ordered(x: Value, op: Op, name: str | None) -> tuple[Value, Value]:
    assert isinstance(op, TopK)
    with x.builder.all_or_nothing():
        indices = x.builder.apply(op, x, name=None if name is None else f"{name}.indices")
        values = x.builder.apply(GatherElements(op.axis), x, indices, name=name)
    return values, indices
