"""Gathers by indices of an axis, and the scatter-add that is their gradient.

The embedding layer gathers rows of a parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np

from graphc.base.arguments import checked_whole, plain, takes
from graphc.base.errors import GraphError
from graphc.ir.access import AccessMap, AxisMap
from graphc.ir.build import Builder, Value, as_value
from graphc.ir.expr import BodyBuilder, Expr, call
from graphc.ir.forms import GatherRule, Read
from graphc.ir.init import Normal
from graphc.ir.op import Array, Cotangents, Layer, Op
from graphc.ir.tensor_type import (
    Batch,
    Dim,
    Shape,
    TensorType,
    count,
    dtype_name,
    normal_axis,
    shape_at,
    shape_text,
)
from graphc.ops.apply import with_attributes
from graphc.ops.source import Constant, constant, parameter

__all__ = ["embedding", "gather"]


class AxisIndexed(Op, base=True):
    """The base of ops that index one axis; indices computed in the net are clipped to its range."""

    takes_positions = True
    axis: int

    def check_indices(self, x: TensorType, indices: TensorType) -> int:
        """Return the axis from the front; raise ValueError unless integers index a fixed size."""
        check_whole(indices)
        axis = normal_axis(self.axis, x.rank)
        if isinstance(x.shape[axis], Batch):
            raise ValueError(
                f"axis {axis} of {shape_text(x.shape)} is the batch, which cannot be indexed\n"
                "its length is known only when the plan runs"
            )
        return axis


def check_whole(indices: TensorType) -> None:
    """Raise ValueError unless the indices are whole numbers."""
    if indices.is_float or indices.dtype == "bool":
        raise ValueError(
            f"the indices are {indices.dtype}, not whole numbers\n"
            "declare them with dtype='int64', or cast them: gc.cast(indices, 'int64')"
        )


def entries(x: TensorType, axis: int) -> int:
    """Return the size of an axis that is indexed."""
    size = x.shape[normal_axis(axis, x.rank)]
    assert isinstance(size, int), "infer lets no other pass"
    return size


@dataclass(frozen=True)
class Gather(AxisIndexed):
    """The slices of x at indices of `axis`, which becomes the indices' shape."""

    is_exact = True
    roles = ("x", "indices")
    gradient_text = ("add_at(zeros(x.shape), indices, axis, d_out)", "")
    only_moves = True
    operations = 0
    axis: int = 0

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        x, indices = ins
        axis = self.check_indices(x, indices)
        return x.with_shape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))

    def reference(self, ins: Sequence[Array]) -> Array:
        x, indices = ins
        return np.asarray(np.take(x, indices, self.axis, mode="clip"))

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        x, indices = ins
        return b.apply(GatherGrad(x.shape, self.axis), indices, dout), None

    def gather(self, ins: Sequence[TensorType], result: TensorType) -> GatherRule | None:
        """Return reads of rows at clipped indices; None for other axes or sizes of the batch."""
        x, indices = ins
        rows, size, columns = count(indices.shape), x.shape[0], count(x.shape[1:])
        if normal_axis(self.axis, x.rank) or 0 in (rows, columns):
            return None
        if not isinstance(size, int) or not isinstance(columns, int) or not indices.rank:
            return None
        last, at = size - 1, AccessMap((AxisMap(columns, size), AxisMap(1, columns)), given=True)

        def write(builder: BodyBuilder, read: Read) -> Expr:
            index = call("maximum", read(1, None).cast("int64"), 0)
            return read(0, at, call("minimum", index, last))

        return GatherRule((rows, columns), write)

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, int]:
        return {1: entries(ins[0], self.axis)}


@dataclass(frozen=True)
class GatherGrad(AxisIndexed):
    """The scatter-add of the slices of dout into zeros of `shape`, in the order of the indices."""

    roles = ("indices", "dout")
    gradient_text = ("", "take(d_out, indices, axis)")
    shape: Shape
    axis: int = 0

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        indices, dout = ins
        part = Gather(self.axis).infer([dout.with_shape(self.shape), indices])
        if part != dout:
            raise ValueError(f"dout is {dout}, the indices select {part}")
        return dout.with_shape(self.shape)

    def reference(self, ins: Sequence[Array]) -> Array:
        """Compute the sums of dout at each index; indices are clipped as in the forward."""
        indices, dout = ins
        out = np.zeros(shape_at(self.shape, 0), dout.dtype)
        axis = normal_axis(self.axis, out.ndim)
        slices = np.moveaxis(out, axis, 0)
        own = range(axis, axis + indices.ndim)
        np.add.at(slices, indices.clip(0, len(slices) - 1), np.moveaxis(dout, own, range(len(own))))
        return out

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return None, b.apply(Gather(self.axis), dout, ins[0])

    def is_scatter_add(self, result: TensorType) -> bool:
        counted = all(isinstance(dim, int) and dim for dim in result.shape)
        first = not normal_axis(self.axis, result.rank)
        return counted and first and result.is_float

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, int]:
        return {0: entries(ins[1].with_shape(self.shape), self.axis)}


@with_attributes(
    example=("(N, 5)", "x, [0, 3], axis=1", "(N, 2)"),
    x="A value of fixed size along the axis.",
    indices="Whole numbers from 0 up: a value or an array of any shape.",
    returns="Of the shape of x with the indices' shape in place of the axis.",
    raises="If the axis is the batch's, or indices are not whole numbers, or one in an array is\n"
    "out of range.",
)
def gather(x: Value, indices: Any, axis: SupportsIndex = 0, *, name: str | None = None) -> Value:
    """Return the slices of x at indices of an axis, as `numpy.take` does.

    Indices that are fed are checked; those computed in the net are clipped to the axis.
    """
    return by_index(Gather(plain(axis)), x, indices, name=name)


def by_index(op: Op, x: Value, indices: Any, *more: Value, name: str | None = None) -> Value:
    """Apply an op to x, indices and more; raise GraphError if a constant index is out of bounds."""
    with as_value(op.name, x).builder.all_or_nothing():
        return checked(op, x, indices_of(op, x, indices), *more, name=name)


def checked(op: Op, *operands: Value, name: str | None = None) -> Value:
    """Apply an op that indexes; raise GraphError if a constant index is out of bounds."""
    found = operands[0].builder.apply(op, *operands, name=name)
    for position, limit in op.index_bounds([value.type for value in operands]).items():
        _check_bounds(op, operands, position, limit)
    return found


def _check_bounds(op: Op, operands: Sequence[Value], position: int, limit: Dim) -> None:
    """Raise GraphError if an operand is a constant with an index out of bounds."""
    source = operands[position].node.op
    if not isinstance(source, Constant) or not isinstance(limit, int):
        return
    array = source.array()
    bad = array[(array < 0) | (array >= limit)]
    if bad.size:
        message = f"index {bad.flat[0]} is out of range for {limit} entries"
        hint = f"indices go from 0 to {limit - 1}"
        raise operands[0].builder.error(op, f"{message}\n{hint}", operands)


def indices_of(op: Op, x: Value, indices: Any) -> Value:
    """Return indices as a value: an array or a list becomes a constant."""
    if isinstance(indices, Value):
        return indices
    array = np.asarray(indices)
    if array.dtype.kind not in "iu":
        raise GraphError(
            f"{op.name}: the indices are {array.dtype}, not whole numbers",
            hint="give a value of the net, or an array or list of whole numbers",
        )
    return constant(as_value(op.name, x).builder, array.astype(np.int64))


NORMAL = Normal(1.0)


class Embedding(Layer):
    """The row of weight (count, width) for each id."""

    roles = ("weight", "ids")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        weight, ids = ins
        if weight.rank != 2:
            raise ValueError(f"weight is {weight}, embedding takes (count, width)")
        return Gather().infer([weight, ids])

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        weight, ids = ins
        return np.asarray(weight[ids])

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        return b.apply(Gather(), *ins, name=name)

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, int]:
        return {1: entries(ins[0], 0)}


@takes(
    "gc.embedding(ids, count, width)",
    num_embeddings="it is count",
    embedding_dim="it is width",
    input_dim="it is count",
    output_dim="it is width",
)
@with_attributes(
    example=("(N, 6)", "x, 1000, 32", "(N, 6, 32)"),
    of="int64",
    ids="Whole numbers from 0 to count - 1, of any shape.",
    width="The numbers of rows and of columns of `<node>.weight`; not needed with `weight`.",
    weight="An existing weight (count, width) to share.",
    init="The rows' initial values: an initializer, its name, a number or an array; by default\n"
    "normal numbers of standard deviation 1.",
    dtype="The dtype of the rows; by default the net's.",
    name="The name of the layer.",
    returns="Of the shape (*ids.shape, width).",
    raises="If the ids are not whole numbers, or the sizes or `init` do not fit.",
)
def embedding(
    ids: Value,
    count: SupportsIndex | None = None,
    width: SupportsIndex | None = None,
    *,
    weight: Value | None = None,
    init: Any = NORMAL,
    dtype: str | None = None,
    name: str | None = None,
) -> Value:
    """Return a trained row for each id.

    A row that several ids name gets the sum of their gradients, in the order of the ids whatever
    the number of threads.
    """
    b = as_value("embedding", ids).builder
    node = b.free_name("embedding", name)
    with b.all_or_nothing():
        if weight is None:
            sizes = _size("count", count), _size("width", width)
            weight = parameter(b, f"{node}.weight", sizes, dtype_name(dtype or b.dtype), init)
        return checked(Embedding(), weight, ids, name=node)


def _size(role: str, given: object) -> int:
    """Return a size from 1 up as an int; raise GraphError for anything else."""
    hint = "count rows of width numbers each: gc.embedding(ids, 1000, 32)"
    return checked_whole(f"embedding: {role}", given, hint=hint)
