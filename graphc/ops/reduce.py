"""Reductions over axes, and the broadcasts that are their gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.build import Builder, Value
from graphc.op import Array, Op
from graphc.ops.elementwise import div, lift, mul
from graphc.ops.shape import reshape
from graphc.plan import Emitter
from graphc.tensor_type import (
    Shape,
    TensorType,
    broadcast,
    count,
    normal_axes,
    normal_axis,
    shape_text,
)

Axes = int | tuple[int, ...] | None


def reduced_shape(shape: Shape, axes: tuple[int, ...], keepdims: bool) -> Shape:
    """The shape once `axes` are summed away."""
    if keepdims:
        return tuple(1 if i in axes else dim for i, dim in enumerate(shape))
    return tuple(dim for i, dim in enumerate(shape) if i not in axes)


class Reduction(Op):
    """One number from each slice along `axes`."""

    roles = ("x",)
    axes: tuple[int, ...]
    keepdims: bool

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (x,) = ins
        if not x.is_float:
            raise ValueError(
                f"x is {x.dtype}, {self.name} takes floats\ncast it: gc.cast(x, 'float32')"
            )
        if any(not 0 <= axis < x.rank for axis in self.axes):
            raise ValueError(f"axes {self.axes} do not exist in shape {shape_text(x.shape)}")
        return x.with_shape(reduced_shape(x.shape, self.axes, self.keepdims))

    def ones(self, em: Emitter, x: TensorType) -> tuple[str, ...]:
        """Ones to sum with by a product, where the first axis or the last alone is summed."""
        if x.rank == 0 or self.axes not in ((0,), (x.rank - 1,)):
            return ()
        return (em.ones(x.with_shape((x.shape[self.axes[0]],))),)

    def spread(self, value: Value, ins: Sequence[Value]) -> Value:
        """A reduced value with its axes back as size 1, ready to broadcast."""
        kept = reduced_shape(ins[0].shape, self.axes, keepdims=True)
        return value if value.shape == kept else reshape(value, kept)


@dataclass(frozen=True)
class Sum(Reduction):
    """The sum over `axes`."""

    axes: tuple[int, ...]
    keepdims: bool = False

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(ins[0].sum(axis=self.axes, keepdims=self.keepdims))

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (broadcast_to(self.spread(dout, ins), ins[0].shape),)

    def lower(self, em: Emitter, ins: Sequence[str], out: str) -> None:
        em.call(self.name, ins, out, scratch=self.ones(em, em.type(ins[0])))


@dataclass(frozen=True)
class Mean(Reduction):
    """The mean over `axes`."""

    axes: tuple[int, ...]
    keepdims: bool = False

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(ins[0].mean(axis=self.axes, keepdims=self.keepdims))

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (b.apply(MeanGrad(ins[0].shape, self.axes), self.spread(dout, ins)),)

    def lower(self, em: Emitter, ins: Sequence[str], out: str) -> None:
        em.call(self.name, ins, out, scratch=self.ones(em, em.type(ins[0])))


@dataclass(frozen=True)
class MeanGrad(Op):
    """dout spread over the elements that were averaged, each its equal share."""

    name = "mean_grad"
    roles = ("dout",)
    shape: Shape
    axes: tuple[int, ...]

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (dout,) = ins
        if dout.shape != reduced_shape(self.shape, self.axes, keepdims=True):
            raise ValueError(f"dout is {dout}, not a mean of {shape_text(self.shape)}")
        return dout.with_shape(self.shape)

    def reference(self, ins: Sequence[Array]) -> Array:
        (dout,) = ins
        shape = np.broadcast_shapes(dout.shape, self.shape)  # type: ignore[arg-type]
        share = dout / dout.dtype.type(np.prod([shape[axis] for axis in self.axes]))
        return np.array(np.broadcast_to(share, shape))

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (b.apply(Mean(self.axes, True), dout),)


@dataclass(frozen=True)
class Max(Reduction):
    """The largest along `axes`; where several are largest they share the gradient evenly."""

    axes: tuple[int, ...]
    keepdims: bool = False

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(ins[0].max(axis=self.axes, keepdims=self.keepdims))

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        from graphc.ops.select import equal
        from graphc.ops.shape import cast

        hit = cast(equal(ins[0], self.spread(out, ins)), ins[0].dtype)
        share = div(self.spread(dout, ins), sum_(hit, self.axes, keepdims=True))
        return (mul(hit, share),)


@dataclass(frozen=True)
class BroadcastTo(Op):
    """x repeated along its axes of size 1 until it has `shape`."""

    name = "broadcast_to"
    roles = ("x",)
    shape: Shape

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (x,) = ins
        if broadcast(x.shape, self.shape) != self.shape:
            raise ValueError(
                f"shape {shape_text(x.shape)} does not broadcast to {shape_text(self.shape)}"
            )
        return x.with_shape(self.shape)

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.array(np.broadcast_to(ins[0], self.shape))  # type: ignore[arg-type]

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        from graphc.ops.elementwise import unbroadcast

        return (unbroadcast(dout, ins[0]),)


@dataclass(frozen=True)
class Argmax(Op):
    """The index of the largest along an axis, the first of equals; int64, no gradient."""

    roles = ("x",)
    axis: int = -1

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (x,) = ins
        axis = normal_axis(self.axis, x.rank)
        return TensorType(reduced_shape(x.shape, (axis,), keepdims=False), "int64")

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(ins[0].argmax(axis=self.axis))

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (None,)

    def lower(self, em: Emitter, ins: Sequence[str], out: str) -> None:
        """Scratch, unless the axis is the last: x with the axis moved there."""
        x = em.type(ins[0])
        axis = normal_axis(self.axis, x.rank)
        if axis == x.rank - 1:
            em.call(self.name, ins, out)
        else:
            moved = (*x.shape[:axis], *x.shape[axis + 1 :], x.shape[axis])
            em.call(self.name, ins, out, scratch=(em.scratch(x.with_shape(moved)),))


class ByIndex(Op):
    """An op one of whose operands holds an index for each row."""

    def call_with_places(self, em: Emitter, ins: Sequence[str], out: str, rows: TensorType) -> None:
        """Scratch: the places the indices point to, and the row numbers."""
        places = em.scratch(rows.with_dtype("int64"))
        em.call(self.name, ins, out, scratch=(places, em.row_numbers(rows)))

    def check_indices(self, rows: Shape, indices: TensorType) -> None:
        """ValueError unless there is one whole number for each row."""
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
    """A new last axis of `depth`, 1 at the index and 0 elsewhere."""

    name = "one_hot"
    roles = ("indices",)
    depth: int
    dtype: str = "float32"

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (indices,) = ins
        self.check_indices(indices.shape, indices)
        return TensorType((*indices.shape, self.depth), self.dtype)

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.eye(self.depth, dtype=self.dtype)[ins[0]]

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (None,)

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, int]:
        return {0: self.depth}

    def lower(self, em: Emitter, ins: Sequence[str], out: str) -> None:
        indices = em.type(ins[0])
        self.call_with_places(em, ins, out, indices.with_shape((count(indices.shape),)))


@dataclass(frozen=True)
class Pick(ByIndex):
    """From each row of scores the one at the row's index."""

    roles = ("scores", "indices")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        scores, indices = ins
        if scores.rank != 2:
            raise ValueError(f"scores have shape {shape_text(scores.shape)}, pick takes (N, C)")
        self.check_indices(scores.shape[:1], indices)
        return scores.with_shape(scores.shape[:1])

    def reference(self, ins: Sequence[Array]) -> Array:
        scores, indices = ins
        return np.asarray(scores[np.arange(len(indices)), indices])

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

    def lower(self, em: Emitter, ins: Sequence[str], out: str) -> None:
        self.call_with_places(em, ins, out, em.type(out))


def sum_(x: Value, axis: Axes = None, keepdims: bool = False, *, name: str | None = None) -> Value:
    """The sum over an axis, several, or all."""
    return _reduce(Sum, x, axis, keepdims, name)


def mean(x: Value, axis: Axes = None, keepdims: bool = False, *, name: str | None = None) -> Value:
    """The mean over an axis, several, or all."""
    return _reduce(Mean, x, axis, keepdims, name)


def max_(x: Value, axis: Axes = None, keepdims: bool = False, *, name: str | None = None) -> Value:
    """The largest over an axis, several, or all."""
    return _reduce(Max, x, axis, keepdims, name)


def _reduce(
    kind: type[Sum] | type[Mean] | type[Max],
    x: Value,
    axis: Axes,
    keepdims: bool,
    name: str | None,
) -> Value:
    try:
        axes = normal_axes(axis, x.type.rank)
    except ValueError as error:
        raise x.builder.error(kind((), keepdims), str(error), (x,), name) from None
    return x.builder.apply(kind(axes, keepdims), x, name=name)


def broadcast_to(x: Value, shape: Shape, *, name: str | None = None) -> Value:
    """x repeated along its axes of size 1 until it has `shape`."""
    return x if x.shape == shape else x.builder.apply(BroadcastTo(shape), x, name=name)


def argmax(x: Value, axis: int = -1, *, name: str | None = None) -> Value:
    """The index of the largest along an axis, as int64."""
    return x.builder.apply(Argmax(axis), x, name=name)


def one_hot(
    indices: Value, depth: int, *, dtype: str = "float32", name: str | None = None
) -> Value:
    """A new last axis of `depth`, 1 at the index and 0 elsewhere."""
    return indices.builder.apply(OneHot(depth, dtype), indices, name=name)


def pick(scores: Value, indices: Value, *, name: str | None = None) -> Value:
    """scores (N, C), indices (N,) -> (N,): one score from each row."""
    return scores.builder.apply(Pick(), scores, lift("pick", indices, scores), name=name)
