"""Values joined along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.base.arguments import plain, takes
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.build import Builder, Value, apply
from graphc.ir.op import Array, Op
from graphc.ir.tensor_type import Batch, Dim, Shape, TensorType, normal_axis
from graphc.ops.slicing import Slice


@dataclass(frozen=True)
class Concat(Op):
    """Values joined along an axis."""

    is_linear = True
    is_exact = True
    gradient_text = ("d_out[part]",)
    only_moves = True
    axis: int

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        first = ins[0]
        axis = normal_axis(self.axis, first.rank)
        for other in ins[1:]:
            if other.dtype != first.dtype or _without(other.shape, axis) != _without(
                first.shape, axis
            ):
                raise ValueError(f"{first} and {other} do not join along axis {axis}")
        return first.with_shape(
            (*first.shape[:axis], _total([t.shape[axis] for t in ins]), *first.shape[axis + 1 :])
        )

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.concatenate(ins, axis=self.axis)

    def operand_starts(self, ins: Sequence[TensorType]) -> list[tuple[int, ...]] | None:
        axis, starts, start = normal_axis(self.axis, ins[0].rank), [], 0
        for x in ins:
            size = x.shape[axis]
            if not isinstance(size, int):
                return None
            starts.append(tuple(start * (i == axis) for i in range(x.rank)))
            start += size
        return starts

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        axis = normal_axis(self.axis, dout.type.rank)
        parts: list[Value | None] = []
        start: Dim = 0
        for operand in ins:
            stop = _total([start, operand.shape[axis]]) if start != 0 else operand.shape[axis]
            cut = (axis, start, stop, 1)
            parts.append(b.apply(Slice((cut,)), dout) if operand.type.is_float else None)
            start = stop
        return parts


def _without(shape: Shape, axis: int) -> Shape:
    return shape[:axis] + shape[axis + 1 :]


def _total(dims: Sequence[Dim]) -> Dim:
    batches = [dim.factor for dim in dims if isinstance(dim, Batch)]
    if not batches:
        return sum(dim for dim in dims if isinstance(dim, int))
    if len(batches) < len(dims):
        raise ValueError("the batch dimension does not join with a fixed one")
    return Batch(sum(batches))


@takes("gc.concat([a, b], axis=1)", dim="it is axis")
def concat(values: Sequence[Value], axis: int = -1, *, name: str | None = None) -> Value:
    """Join values along an axis; all other dimensions agree."""
    if isinstance(values, Value):
        raise GraphError(
            "concat takes several values as one list",
            loc=caller_loc(),
            hint="gc.concat([a, b], axis=1)",
        )
    values = tuple(values)
    if not values:
        raise GraphError("concat: there is nothing to join", loc=caller_loc())
    return apply(Concat(plain(axis)), *values, name=name)
