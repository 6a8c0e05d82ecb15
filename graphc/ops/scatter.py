"""Gathers and scatters of elements by indices into an axis, and of slices by index tuples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex

import numpy as np

from graphc.base.arguments import check_choice, plain
from graphc.ir.build import Builder, Value, as_value
from graphc.ir.op import Array, Cotangents, NoGradient, Op
from graphc.ir.tensor_type import Dim, Shape, TensorType, count, normal_axis, shape_text
from graphc.ops.elementwise import div, mul
from graphc.ops.gather import ByPlace, Gather, by_index, check_whole, checked, entries, indices_of
from graphc.ops.reduce import broadcast_to, reduced_shape
from graphc.ops.select import equal, where
from graphc.ops.shape import Move, cast, reshape
from graphc.ops.source import constant

__all__ = ["gather_elements", "gather_nd", "scatter_elements", "scatter_nd"]

Reduction = Literal["none", "add", "max", "min"]
REDUCTIONS: tuple[Reduction, ...] = ("none", "add", "max", "min")


class ElementsByIndex(ByPlace, base=True):
    """The base of ops whose indices have the shape of x in all but `axis`."""

    def check_elements(self, x: TensorType, indices: TensorType) -> None:
        """Raise ValueError unless the indices fit x."""
        axis = self.check_indices(x, indices)
        others, wanted = (reduced_shape(type.shape, (axis,)) for type in (indices, x))
        if indices.rank != x.rank or others != wanted:
            raise ValueError(
                f"x has shape {shape_text(x.shape)}, the indices {shape_text(indices.shape)}\n"
                f"they agree in all but axis {axis}: slice or broadcast one of them"
            )

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, int]:
        return {1: entries(ins[0], self.axis)}


@dataclass(frozen=True)
class GatherElements(Move, ElementsByIndex):
    """The element of x at each index into `axis`, and at the index's position in other axes."""

    roles = ("x", "indices")
    gradient_text = ("scatter('add', zeros(x.shape), indices, d_out, axis)", "")
    axis: int

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        x, indices = ins
        self.check_elements(x, indices)
        return x.with_shape(indices.shape)

    def reference(self, ins: Sequence[Array]) -> Array:
        x, indices = ins
        held = indices.clip(0, x.shape[self.axis] - 1)
        return np.asarray(np.take_along_axis(x, held, self.axis))

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        x, indices = ins
        zeros = _full(b, 0.0, x)
        return b.apply(ScatterElements(self.axis, "add"), zeros, indices, dout), None


@dataclass(frozen=True)
class ScatterElements(ElementsByIndex):
    """x with updates written, or combined by add, max or min, at the indices into `axis`.

    This is done in order: of several writes to an element the last stays.
    """

    roles = ("x", "indices", "updates")
    inplace = (0,)
    axis: int
    reduction: Reduction = "none"

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        x, indices, updates = ins
        self.check_elements(x, indices)
        if updates != x.with_shape(indices.shape):
            raise ValueError(f"updates are {updates}, x is {x}: there is one for each index")
        if x.dtype == "bool" and self.reduction == "add":
            raise ValueError("x is bool, numbers are added")
        return x

    def reference(self, ins: Sequence[Array]) -> Array:
        x, indices, updates = ins
        out, axis = x.copy(), normal_axis(self.axis, x.ndim)
        grid: list[Array] = list(np.indices(indices.shape, sparse=True))
        grid[axis] = indices.clip(0, x.shape[axis] - 1)
        scatter_at(self.reduction, out, tuple(grid), updates)
        return out

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        if self.reduction not in ("max", "min"):
            return None
        out = self.reference(ins)
        chosen = GatherElements(self.axis).reference([out, ins[1]])
        gaps = np.concatenate([(out - ins[0]).ravel(), (chosen - ins[2]).ravel()])
        return np.asarray(gaps[gaps != 0])  # 0 at the extreme itself

    @property
    def gradient_text(self) -> tuple[str, ...]:
        chosen = "take(d_out, indices, axis)"
        if self.reduction == "add":
            return "d_out", "", chosen
        if self.reduction == "none":
            untouched = "scatter('none', d_out, indices, zeros(updates.shape), axis)"
            return untouched, "", f"last(indices, axis) * {chosen}"
        hits = "(updates == take(out, indices, axis))"
        total = f"scatter('add', (x == out) * 1.0, indices, {hits} * 1.0, axis)"
        return (
            f"(x == out) * d_out / {total}",
            "",
            f"{hits} * take(d_out / {total}, indices, axis)",
        )

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        x, indices, updates = ins
        if self.reduction == "add":
            return dout, None, self._chosen(b, dout, indices)
        if self.reduction == "none":
            stays = b.apply(LastWrite(entries(x.type, self.axis), self.axis), indices)
            dx = b.apply(ScatterElements(self.axis), dout, indices, _full(b, 0.0, updates))
            return dx, None, where(stays, self._chosen(b, dout, indices), 0.0)
        own = cast(equal(x, out), x.dtype)
        hits = cast(equal(updates, self._chosen(b, out, indices)), x.dtype)
        share = div(dout, b.apply(ScatterElements(self.axis, "add"), own, indices, hits))
        return mul(own, share), None, mul(hits, self._chosen(b, share, indices))

    def _chosen(self, b: Builder, value: Value, indices: Value) -> Value:
        return b.apply(GatherElements(self.axis), value, indices)


@dataclass(frozen=True)
class LastWrite(NoGradient, ElementsByIndex):
    """The mask of indices into `axis`, of `size` entries, that are the last equal of a slice."""

    is_exact = True
    roles = ("indices",)
    size: int
    axis: int

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (indices,) = ins
        self.check_elements(self.written(indices), indices)
        return indices.with_dtype("bool")

    def written(self, indices: TensorType) -> TensorType:
        """Return a type with the shape of the array that is written to."""
        axis = normal_axis(self.axis, indices.rank)
        shape: list[Dim] = list(indices.shape)
        shape[axis] = self.size
        return TensorType(tuple(shape), "int64")

    def reference(self, ins: Sequence[Array]) -> Array:
        indices = np.moveaxis(ins[0].clip(0, self.size - 1), self.axis, 0)
        later = [(indices[i + 1 :] == indices[i]).any(axis=0) for i in range(len(indices))]
        shape = indices.shape
        return np.moveaxis(~np.reshape(np.array(later, bool), shape), 0, self.axis).copy()

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, int]:
        return {0: self.size}


def scatter_at(reduction: Reduction, out: Array, index: Any, updates: Array) -> None:
    """Write the updates into an array at an index, or combine them with its elements."""
    if reduction == "none":
        out[index] = updates
    else:
        {"add": np.add, "max": np.maximum, "min": np.minimum}[reduction].at(out, index, updates)


def _full(b: Builder, number: float, like: Value) -> Value:
    return broadcast_to(constant(b, number, like.dtype), like.shape)


def gather_elements(
    x: Value, indices: Any, axis: SupportsIndex = -1, *, name: str | None = None
) -> Value:
    """Return out[i, j, ...] = x[i, indices[i, j, ...], ...] for axis 1, and so for any axis.

    As `numpy.take_along_axis`.

    Parameters
    ----------
    x
        A value.
    indices
        Whole numbers: a value or an array, which may count from the end; computed ones are clipped.
        They agree with x in all but `axis`.
    axis
        The axis that is indexed, of fixed size.
    name
        The name of the node.

    Returns
    -------
    Value
        Of the indices' shape and x's dtype.

    Raises
    ------
    GraphError
        If the shapes do not fit, or the axis is the batch's.

    Examples
    --------
    >>> net = gc.Net("example")
    >>> x, i = net.input("x", (gc.N, 5)), net.input("i", (gc.N, 2), dtype="int64")
    >>> gc.gather_elements(x, i).shape
    (N, 2)
    """
    return by_index(GatherElements(plain(axis)), x, indices, name=name)


def scatter_elements(
    x: Value,
    indices: Any,
    updates: Value,
    axis: SupportsIndex = -1,
    *,
    reduction: Reduction = "none",
    name: str | None = None,
) -> Value:
    """Return x with updates written at indices of an axis.

    For axis 1: out[i, indices[i, j, ...], ...] = updates[i, j, ...], in order, so that of several
    writes to an element the last stays.

    Parameters
    ----------
    x
        A value.
    indices
        Whole numbers: a value or an array, which may count from the end; computed ones are clipped.
        They agree with x in all but `axis`.
    updates
        A value of the indices' shape and x's dtype.
    axis
        The axis that is indexed, of fixed size.
    reduction
        How an update joins the element: "none" replaces it, or "add", "max" or "min".
    name
        The name of the node.

    Returns
    -------
    Value
        Of x's shape and dtype.

    Raises
    ------
    GraphError
        If the shapes do not fit, or there is no such reduction.

    Examples
    --------
    >>> net = gc.Net("example")
    >>> x, i = net.input("x", (gc.N, 5)), net.input("i", (gc.N, 2), dtype="int64")
    >>> gc.scatter_elements(x, i, x[:, :2]).shape
    (N, 5)
    """
    _check_reduction("scatter_elements", reduction)
    return by_index(ScatterElements(plain(axis), reduction), x, indices, updates, name=name)


def _check_reduction(function: str, reduction: str) -> None:
    hint = "'none' writes, 'add' adds to what is there"
    check_choice(f"{function}: reduction", reduction, REDUCTIONS, hint=hint)


@dataclass(frozen=True)
class FlatIndex(NoGradient):
    """The flat index, in C order over axes of `sizes`, of each index tuple in the last axis.

    Each index is clipped to its axis.
    """

    is_exact = True
    roles = ("indices",)
    sizes: tuple[int, ...]

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (indices,) = ins
        check_whole(indices)
        if indices.rank < 1 or indices.shape[-1] != len(self.sizes):
            raise ValueError(f"indices are {indices}, there are {len(self.sizes)} axes")
        return TensorType(indices.shape[:-1], "int64")

    def reference(self, ins: Sequence[Array]) -> Array:
        parts = [np.asarray(ins[0][..., i], np.int64) for i in range(len(self.sizes))]
        return np.asarray(np.ravel_multi_index(tuple(parts), self.sizes, mode="clip"))

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, int]:
        """Return the largest size: one limit serves all axes."""
        return {0: max(self.sizes)}


def gather_nd(x: Value, indices: Any, batch_dims: int = 0, *, name: str | None = None) -> Value:
    """Return the slices of x at index tuples.

    Parameters
    ----------
    x
        A value of shape (B..., d1, ..., dk, rest...).
    indices
        Whole numbers (B..., more..., k): tuples in the last axis.
    batch_dims
        How many of the first axes, B, are common to both.
    name
        The name of the node.

    Returns
    -------
    Value
        Of shape (B..., more..., rest...).

    Raises
    ------
    GraphError
        If the shapes do not fit, or an axis that is indexed is the batch's.

    Examples
    --------
    >>> net = gc.Net("example")
    >>> x, i = net.input("x", (4, 5, 6)), net.input("i", (gc.N, 2), dtype="int64")
    >>> gc.gather_nd(x, i).shape
    (N, 6)
    """
    op = Gather()
    with as_value(op.name, x).builder.all_or_nothing():
        where = indices_of(op, x, indices)
        shared, k = _axes(op, x, where, batch_dims)
        common, sizes, rest = x.shape[:shared], x.shape[shared : shared + k], x.shape[shared + k :]
        flat = _flat_index(op, x, where, sizes)
        table = reshape(x, (*common, count(sizes), *rest))
        if not shared:
            return x.builder.apply(op, table, flat, name=name)
        rows = (*common, count(sizes), count(rest))
        wide = (*common, count(flat.shape[shared:]), count(rest))
        spread = broadcast_to(reshape(flat, (*wide[:-1], 1)), wide)
        found = x.builder.apply(GatherElements(shared), reshape(table, rows), spread)
        return reshape(found, (*flat.shape, *rest), name=name)


def scatter_nd(
    x: Value,
    indices: Any,
    updates: Value,
    *,
    reduction: Reduction = "none",
    name: str | None = None,
) -> Value:
    """Return x with slices written at index tuples, in order.

    Parameters
    ----------
    x
        A value of shape (d1, ..., dk, rest...).
    indices
        Whole numbers (more..., k): tuples in the last axis.
    updates
        The slices (more..., rest...).
    reduction
        As in `scatter_elements`.
    name
        The name of the node.

    Returns
    -------
    Value
        Of x's shape and dtype.

    Raises
    ------
    GraphError
        If the shapes do not fit, or there is no such reduction.

    Examples
    --------
    >>> net = gc.Net("example")
    >>> x, i = net.input("x", (4, 5)), net.input("i", (gc.N, 1), dtype="int64")
    >>> gc.scatter_nd(x, i, net.input("u", (gc.N, 5))).shape
    (4, 5)
    """
    _check_reduction("scatter_nd", reduction)
    op = ScatterElements(0, reduction)
    with as_value(op.name, x).builder.all_or_nothing():
        where = indices_of(op, x, indices)
        _, k = _axes(op, x, where, 0)
        sizes, rest = x.shape[:k], x.shape[k:]
        _check_updates(op, x, updates, (*where.shape[:-1], *rest))
        flat = _flat_index(op, x, where, sizes)
        wide = (count(flat.shape), count(rest))
        spread = broadcast_to(reshape(flat, (wide[0], 1)), wide)
        table = reshape(x, (count(sizes), wide[1]))
        made = x.builder.apply(op, table, spread, reshape(updates, wide))
        return reshape(made, x.shape, name=name)


def _check_updates(op: Op, x: Value, updates: Value, shape: Shape) -> None:
    if as_value(op.name, updates).shape != shape:
        message = f"updates have shape {shape_text(updates.shape)}, one slice of x for each index"
        raise x.builder.error(op, f"{message} is {shape_text(shape)}", (x,))


def _axes(op: Op, x: Value, indices: Value, batch_dims: int) -> tuple[int, int]:
    """Return how many axes are common, and how many are indexed."""
    shared, k = plain(batch_dims), indices.shape[-1] if indices.type.rank else None
    if not isinstance(k, int) or not 1 <= k <= x.type.rank - shared:
        message = f"x is {x.type}, indices are {indices.type}: their last axis indexes x's first"
        raise x.builder.error(op, message, (x, indices))
    if x.shape[:shared] != indices.shape[:-1][:shared]:
        message = f"x is {x.type}, indices are {indices.type}: the first {shared} axes differ"
        raise x.builder.error(op, message, (x, indices))
    return shared, k


def _flat_index(op: Op, x: Value, indices: Value, sizes: Shape) -> Value:
    fixed = tuple(size for size in sizes if isinstance(size, int))
    if len(fixed) < len(sizes):
        message = f"the indices name rows of the batch of {x.type}\nname the batch by batch_dims=1"
        raise x.builder.error(op, message, (x, indices))
    return checked(FlatIndex(fixed), indices)
