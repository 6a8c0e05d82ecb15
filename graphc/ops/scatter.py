"""Gathers and scatters of elements by indices into an axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, SupportsIndex

import numpy as np

from graphc.base.arguments import check_choice, plain
from graphc.ir.build import Builder, Value
from graphc.ir.op import Array, Cotangents, NoGradient
from graphc.ir.tensor_type import Dim, TensorType, normal_axis, shape_text
from graphc.ops.apply import with_attributes
from graphc.ops.elementwise import div, mul
from graphc.ops.gather import AxisIndexed, by_index, entries
from graphc.ops.select import equal, where
from graphc.ops.shape import Move, cast
from graphc.ops.source import constant
from graphc.ops.sums import broadcast_to, reduced_shape

__all__ = ["gather_elements", "scatter_elements"]

Reduction = Literal["none", "add", "max", "min"]
REDUCTIONS: tuple[Reduction, ...] = ("none", "add", "max", "min")


class ElementsByIndex(AxisIndexed, base=True):
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
        """Return x's type; raise ValueError unless there is one update of x's dtype per index."""
        x, indices, updates = ins
        self.check_elements(x, indices)
        if updates != x.with_shape(indices.shape):
            raise ValueError(f"updates are {updates}, x is {x}: there is one for each index")
        if x.dtype == "bool" and self.reduction == "add":
            raise ValueError("x is bool, numbers are added")
        return x

    def reference(self, ins: Sequence[Array]) -> Array:
        """Compute it in a copy of x; indices are clipped to the axis."""
        x, indices, updates = ins
        out, axis = x.copy(), normal_axis(self.axis, x.ndim)
        grid: list[Array] = list(np.indices(indices.shape, sparse=True))
        grid[axis] = indices.clip(0, x.shape[axis] - 1)
        scatter_at(self.reduction, out, tuple(grid), updates)
        return out

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        """Return the gaps to each extreme, for max and min; adding and replacing have no kinks."""
        if self.reduction not in ("max", "min"):
            return None
        out = self.reference(ins)
        chosen = GatherElements(self.axis).reference([out, ins[1]])
        gaps = np.concatenate([(out - ins[0]).ravel(), (chosen - ins[2]).ravel()])
        return np.asarray(gaps[gaps != 0])  # 0 at the extreme itself

    @property
    def gradient_text(self) -> tuple[str, ...]:
        """The gradients of x and updates; equal extremes of an element share theirs."""
        chosen = "take_along_axis(d_out, indices, axis)"
        if self.reduction == "add":
            return "d_out", "", chosen
        if self.reduction == "none":
            untouched = "scatter('none', d_out, indices, zeros(updates.shape), axis)"
            return untouched, "", f"last(indices, axis) * {chosen}"
        hits = "(updates == take_along_axis(out, indices, axis))"
        total = f"scatter('add', (x == out) * 1.0, indices, {hits} * 1.0, axis)"
        return (
            f"(x == out) * d_out / {total}",
            "",
            f"{hits} * take_along_axis(d_out / {total}, indices, axis)",
        )

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return dout where x stays, and for updates dout at the indices; extremes share it."""
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
        """Return the elements of a value at the indices."""
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
    """Return a value of the shape and dtype of another, filled with one number."""
    return broadcast_to(constant(b, number, like.dtype), like.shape)


_by_elements = partial(
    with_attributes,
    also='i = net.input("i", (gc.N, 2), dtype="int64")',
    indices="Whole numbers: a value or an array, which may count from the end; computed ones are\n"
    "clipped.  They agree with x in all but `axis`.",
    axis="The axis that is indexed, of fixed size.",
)


@_by_elements(
    example=("(N, 5)", "x, i", "(N, 2)"),
    returns="Of the indices' shape and x's dtype.",
    raises="If the shapes do not fit, or the axis is the batch's.",
)
def gather_elements(
    x: Value, indices: Any, axis: SupportsIndex = -1, *, name: str | None = None
) -> Value:
    """Return out[i, j, ...] = x[i, indices[i, j, ...], ...] for axis 1, and so for any axis.

    As `numpy.take_along_axis`.
    """
    return by_index(GatherElements(plain(axis)), x, indices, name=name)


@_by_elements(
    example=("(N, 5)", "x, i, x[:, :2]", "(N, 5)"),
    updates="A value of the indices' shape and x's dtype.",
    reduction='The way in which an update joins the element: "none" replaces it, or "add", "max"\n'
    'or "min".',
    raises="If the shapes do not fit, or there is no such reduction.",
)
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
    """
    check_reduction("scatter_elements", reduction)
    return by_index(ScatterElements(plain(axis), reduction), x, indices, updates, name=name)


def check_reduction(function: str, reduction: str) -> None:
    """Raise GraphError unless there is a reduction of that name."""
    hint = "'none' replaces elements, 'add' adds to them"
    check_choice(f"{function}: reduction", reduction, REDUCTIONS, hint=hint)
