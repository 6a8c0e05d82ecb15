"""Other shapes, dtypes and orders of the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from graphc.build import Builder, Value
from graphc.errors import GraphError
from graphc.loc import caller_loc
from graphc.op import Array, Op
from graphc.plan import Emitter
from graphc.tensor_type import (
    Batch,
    Dim,
    Shape,
    TensorType,
    count,
    normal_axis,
    shape_at,
    shape_text,
)


@dataclass(frozen=True)
class Reshape(Op):
    """The same elements in C order under another shape; no copy is made."""

    roles = ("x",)
    shape: Shape

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (x,) = ins
        if count(x.shape) != count(self.shape):
            raise ValueError(
                f"shape {shape_text(x.shape)} has {count(x.shape)} elements, "
                f"{shape_text(self.shape)} has {count(self.shape)}"
            )
        return x.with_shape(self.shape)

    def reference(self, ins: Sequence[Array]) -> Array:
        return ins[0].reshape(shape_at(self.shape, 0))

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (reshape(dout, ins[0].shape),)

    def lower(self, em: Emitter, ins: Sequence[str], out: str) -> None:
        em.alias(ins[0], out)


@dataclass(frozen=True)
class Transpose(Op):
    """The axes in another order."""

    roles = ("x",)
    axes: tuple[int, ...]

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (x,) = ins
        if sorted(self.axes) != list(range(x.rank)):
            raise ValueError(f"axes {self.axes} are no order of the axes of {shape_text(x.shape)}")
        return x.with_shape(tuple(x.shape[axis] for axis in self.axes))

    def reference(self, ins: Sequence[Array]) -> Array:
        return ins[0].transpose(self.axes).copy()

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        back = tuple(self.axes.index(i) for i in range(len(self.axes)))
        return (transpose(dout, back),)


@dataclass(frozen=True)
class Concat(Op):
    """Values joined along an axis."""

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


Cut = tuple[int, Dim, Dim, int]
"""An axis with start, stop (both from the front) and step."""


@dataclass(frozen=True)
class Slice(Op):
    """A regular part of x: `cuts` says for each axis that is cut its start, stop and step."""

    roles = ("x",)
    cuts: tuple[Cut, ...]

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (x,) = ins
        dims = list(x.shape)
        for axis, start, stop, step in self.cuts:
            dims[axis] = _length(x.shape[axis], start, stop, step)
        return x.with_shape(tuple(dims))

    def reference(self, ins: Sequence[Array]) -> Array:
        return ins[0][self.index(ins[0].ndim)].copy()

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (b.apply(SliceGrad(ins[0].shape, self.cuts), dout),)

    def index(self, rank: int) -> tuple[slice, ...]:
        """The NumPy index, once the op's dimensions are concrete."""
        return cut_index(self.cuts, rank)


@dataclass(frozen=True)
class SliceGrad(Op):
    """Zeros of `shape` with dout where the cuts point."""

    name = "slice_grad"
    roles = ("dout",)
    shape: Shape
    cuts: tuple[Cut, ...]

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (dout,) = ins
        part = Slice(self.cuts).infer([dout.with_shape(self.shape)])
        if part != dout:
            raise ValueError(f"dout is {dout}, the part is {part}")
        return dout.with_shape(self.shape)

    def reference(self, ins: Sequence[Array]) -> Array:
        out = np.zeros(shape_at(self.shape, 0), ins[0].dtype)
        out[cut_index(self.cuts, out.ndim)] = ins[0]
        return out

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (b.apply(Slice(self.cuts), dout),)


def cut_index(cuts: Sequence[Cut], rank: int) -> tuple[slice, ...]:
    """The NumPy index of concrete cuts."""
    index = [slice(None)] * rank
    for axis, start, stop, step in cuts:
        assert isinstance(start, int)
        assert isinstance(stop, int)
        index[axis] = slice(start, stop, step)
    return tuple(index)


def _length(dim: Dim, start: Dim, stop: Dim, step: int) -> Dim:
    if isinstance(dim, int) and isinstance(start, int) and isinstance(stop, int):
        if not 0 <= start <= stop <= dim or step < 1:
            raise ValueError(f"slice {start}:{stop}:{step} does not fit a dimension of {dim}")
        return len(range(start, stop, step))
    if step != 1 or not isinstance(stop, Batch):
        raise ValueError("the batch dimension is sliced whole")
    first = start.factor if isinstance(start, Batch) else 0
    whole = dim.factor if isinstance(dim, Batch) else 0
    if not 0 <= first < stop.factor <= whole or (start != 0 and not isinstance(start, Batch)):
        raise ValueError(f"slice {start}:{stop} does not fit a dimension of {dim}")
    return Batch(stop.factor - first)


@dataclass(frozen=True)
class Cast(Op):
    """The same numbers in another dtype; gradients are cast back, and end at whole numbers."""

    roles = ("x",)
    dtype: str

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return ins[0].with_dtype(self.dtype)

    def reference(self, ins: Sequence[Array]) -> Array:
        return ins[0].astype(self.dtype)

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (cast(dout, ins[0].dtype) if ins[0].type.is_float else None,)


@dataclass(frozen=True)
class StopGradient(Op):
    """x itself, through which no gradient flows."""

    name = "stop_gradient"
    roles = ("x",)

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return ins[0]

    def reference(self, ins: Sequence[Array]) -> Array:
        return ins[0]

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (None,)

    def lower(self, em: Emitter, ins: Sequence[str], out: str) -> None:
        em.alias(ins[0], out)


def reshape(x: Value, shape: Sequence[Dim], *, name: str | None = None) -> Value:
    """The same elements under another shape; one dimension may be -1."""
    wanted = tuple(shape)
    if wanted.count(-1) == 1:
        wanted = _solve(x, wanted)
    return x.builder.apply(Reshape(wanted), x, name=name)


def _solve(x: Value, shape: Shape) -> Shape:
    total, rest = count(x.shape), tuple(dim for dim in shape if dim != -1)
    fixed = prod(dim for dim in rest if isinstance(dim, int))
    batch = next((dim for dim in rest if isinstance(dim, Batch)), None)
    elements = total.factor if isinstance(total, Batch) else total
    known = fixed * (batch.factor if batch else 1)
    if known == 0 or elements % known or (batch is not None and not isinstance(total, Batch)):
        message = f"{shape_text(x.shape)} does not reshape to {shape_text(shape)}"
        raise x.builder.error(Reshape(rest), message, (x,))
    missing = elements // known
    free = Batch(missing) if isinstance(total, Batch) and batch is None else missing
    return tuple(free if dim == -1 else dim for dim in shape)


def flatten(x: Value, *, name: str | None = None) -> Value:
    """x (N, d1, ..., dk) as (N, d1*...*dk)."""
    if x.type.rank < 1:
        raise x.builder.error(Reshape(()), "a scalar has no rows to keep", (x,))
    columns = count(x.shape[1:])
    return reshape(x, (x.shape[0], columns), name=name)


def transpose(x: Value, axes: Sequence[int] | None = None, *, name: str | None = None) -> Value:
    """The axes in another order; reversed when none is given."""
    order = tuple(axes) if axes is not None else tuple(reversed(range(x.type.rank)))
    return x.builder.apply(Transpose(order), x, name=name)


def concat(values: Sequence[Value], axis: int = -1, *, name: str | None = None) -> Value:
    """Values joined along an axis; all other dimensions agree."""
    if not values:
        raise GraphError("concat: there is nothing to join", loc=caller_loc())
    return values[0].builder.apply(Concat(axis), *values, name=name)


def cast(x: Value, dtype: str, *, name: str | None = None) -> Value:
    """The same numbers in another dtype."""
    return x if x.dtype == dtype else x.builder.apply(Cast(str(dtype)), x, name=name)


def stop_gradient(x: Value, *, name: str | None = None) -> Value:
    """x itself, through which no gradient flows."""
    return x.builder.apply(StopGradient(), x, name=name)


def slice_(x: Value, key: Any, *, name: str | None = None) -> Value:
    """`x[key]` with NumPy's slices and whole numbers; the batch dimension stays whole."""
    keys = key if isinstance(key, tuple) else (key,)
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        missing = x.type.rank - len(keys) + 1
        keys = (*keys[:at], *[slice(None)] * missing, *keys[at + 1 :])
    if len(keys) > x.type.rank:
        raise x.builder.error(Slice(()), f"{len(keys)} indices for rank {x.type.rank}", (x,))
    cuts, dropped = [], []
    for axis, part in enumerate(keys):
        cut = _cut(x, axis, part)
        if cut is not None:
            cuts.append(cut)
        if isinstance(part, int):
            dropped.append(axis)
    out = x.builder.apply(Slice(tuple(cuts)), x, name=None if dropped else name) if cuts else x
    if not dropped:
        return out
    shape = tuple(dim for axis, dim in enumerate(out.shape) if axis not in dropped)
    return reshape(out, shape, name=name)


def _cut(x: Value, axis: int, part: Any) -> Cut | None:
    dim = x.shape[axis]
    if part == slice(None):
        return None
    if isinstance(dim, Batch):
        raise x.builder.error(
            Slice(()),
            "the batch dimension is taken whole\nits length is known only when the plan runs",
            (x,),
        )
    if isinstance(part, slice) and (part.step is None or part.step > 0):
        return (axis, *part.indices(dim))
    if isinstance(part, int) and not isinstance(part, bool) and -dim <= part < dim:
        return (axis, part % dim, part % dim + 1, 1)
    raise x.builder.error(Slice(()), f"index {part!r} does not fit a dimension of {dim}", (x,))
