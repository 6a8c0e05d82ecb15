"""Gathers and scatters of slices by index tuples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.base.arguments import plain
from graphc.ir.build import Value, as_value
from graphc.ir.op import Array, NoGradient, Op
from graphc.ir.tensor_type import Shape, TensorType, count, shape_text
from graphc.ops.apply import with_attributes
from graphc.ops.gather import Gather, check_whole, checked, indices_of
from graphc.ops.scatter import GatherElements, Reduction, ScatterElements, check_reduction
from graphc.ops.shape import reshape
from graphc.ops.sums import broadcast_to

__all__ = ["gather_nd", "scatter_nd"]


@dataclass(frozen=True)
class FlatIndex(NoGradient):
    """The flat index, in C order over `sizes`, of each tuple in the last axis, clipped to axes."""

    takes_positions = True
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


@with_attributes(
    example=("(4, 5, 6)", "x, i", "(N, 6)"),
    also='i = net.input("i", (gc.N, 2), dtype="int64")',
    x="",
    indices="Values of shape (B..., d1, ..., dk, rest...) and (B..., more..., k); the tuples are\n"
    "in the last axis of the indices.",
    batch_dims="The number of first axes, B, that are common to both.",
    returns="Of shape (B..., more..., rest...).",
    raises="If the shapes do not fit, or an axis that is indexed is the batch's.",
)
def gather_nd(x: Value, indices: Any, batch_dims: int = 0, *, name: str | None = None) -> Value:
    """Return the slices of x at index tuples."""
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


@with_attributes(
    example=("(4, 5)", "x, i, u", "(4, 5)"),
    also='i = net.input("i", (gc.N, 1), dtype="int64")\nu = net.input("u", (gc.N, 5))',
    x="",
    updates="Values of shape (d1, ..., dk, rest...), (more..., k) and (more..., rest...); the\n"
    "tuples are in the last axis of the indices.",
    reduction="As in `gc.scatter_elements`.",
    raises="If the shapes do not fit, or there is no such reduction.",
)
def scatter_nd(
    x: Value,
    indices: Any,
    updates: Value,
    *,
    reduction: Reduction = "none",
    name: str | None = None,
) -> Value:
    """Return x with slices written at index tuples, in order."""
    check_reduction("scatter_nd", reduction)
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
    """Raise GraphError unless the updates have one slice of x for each index tuple."""
    if as_value(op.name, updates).shape != shape:
        message = f"updates have shape {shape_text(updates.shape)}, one slice of x for each index"
        raise x.builder.error(op, f"{message} is {shape_text(shape)}", (x,))


def _axes(op: Op, x: Value, indices: Value, batch_dims: int) -> tuple[int, int]:
    """Return the numbers of common and of indexed axes."""
    shared, k = plain(batch_dims), indices.shape[-1] if indices.type.rank else None
    if not isinstance(k, int) or not 1 <= k <= x.type.rank - shared:
        message = f"x is {x.type}, indices are {indices.type}: their last axis indexes x's first"
        raise x.builder.error(op, message, (x, indices))
    if x.shape[:shared] != indices.shape[:-1][:shared]:
        message = f"x is {x.type}, indices are {indices.type}: the first {shared} axes differ"
        raise x.builder.error(op, message, (x, indices))
    return shared, k


def _flat_index(op: Op, x: Value, indices: Value, sizes: Shape) -> Value:
    """Return the flat index of each tuple; raise GraphError if an indexed axis is the batch."""
    fixed = tuple(size for size in sizes if isinstance(size, int))
    if len(fixed) < len(sizes):
        message = f"the indices name rows of the batch of {x.type}\nname the batch by batch_dims=1"
        raise x.builder.error(op, message, (x, indices))
    return checked(FlatIndex(fixed), indices)
