"""Means and extremes over axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from math import prod
from typing import ClassVar

import numpy as np

from graphc.ir.access import AccessMap, dense_maps
from graphc.ir.build import Builder, Value
from graphc.ir.expr import Axis, BodyBuilder, Expr, call
from graphc.ir.forms import MOST, GatherRule, Read
from graphc.ir.op import Array, Cotangents, Iteration, Op
from graphc.ir.tensor_type import (
    FLOATS,
    Dim,
    Shape,
    TensorType,
    check_entries,
    count,
    shape_text,
)
from graphc.kernels.iteration_space import elements
from graphc.ops.elementwise import div, mul
from graphc.ops.select import equal
from graphc.ops.shape import cast
from graphc.ops.sums import Reduction, is_reducible, reduced_shape, reducing, repeated, sum_

__all__ = ["max_", "mean", "min_"]


def split_at(shape: Shape, first: int, end: int) -> tuple[Dim, Dim, Dim]:
    """Return the elements before some axes of a shape, along these, and after them."""
    return count(shape[:first]), count(shape[first:end]), count(shape[end:])


def below_largest(x: Array, axes: tuple[int, ...]) -> Array:
    """Return the finite distances between each slice's largest number and its others."""
    last = np.moveaxis(x, axes, range(-len(axes), 0))
    lead = last.shape[: x.ndim - len(axes)]
    ordered = np.sort(last.reshape(*lead, x.size // max(prod(lead), 1)), axis=-1)
    gaps = ordered[..., -1:] - ordered[..., :-1]
    return np.asarray(gaps[np.isfinite(gaps)])


class Mean(Reduction):
    """The mean over an axis, several, or all."""

    is_linear = True
    floats_only = True
    gradient_text = ("spread(d_out) / count",)

    def reference(self, ins: Sequence[Array]) -> Array:
        return self.by_numpy(np.mean, ins)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return ins[0].mean(axis)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (b.apply(MeanGrad(ins[0].shape, self.axes), self.spread(dout, ins)),)


@dataclass(frozen=True)
class MeanGrad(Op):
    """dout spread over the averaged elements, in equal shares."""

    takes_pairs = True
    roles = ("dout",)
    gradient_text = ("sum(d_out, axes) / count",)
    operations = 0
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

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return elements(ins, self.infer(ins))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return self._share(ins[0])

    def gather(self, ins: Sequence[TensorType], result: TensorType) -> GatherRule | None:
        rule = repeated(ins[0], result)
        if rule is None:
            return None
        read = rule.write
        return replace(rule, write=lambda builder, fetch: self._share(read(builder, fetch)))

    def _share(self, dout: Expr) -> Expr:
        averaged = count(tuple(self.shape[axis] for axis in self.axes))
        return dout / dout.builder.dim(averaged, dout.dtype)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (b.apply(Mean(self.axes, True), dout),)


class Extreme(Reduction, base=True):
    """The base of max and min; equally extreme elements share the gradient evenly."""

    is_exact = True
    of_two: ClassVar[str]
    """The function that returns the extreme of two elements."""
    gradient_text = ("(x == spread(out)) * spread(d_out) / sum(x == spread(out), axes)",)

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        found = super().infer(ins)
        check_entries(ins[0].shape, self.axes)
        return found

    def gather(self, ins: Sequence[TensorType], result: TensorType) -> GatherRule | None:
        """Return the extreme of up to `MOST` elements over axes between others; else None."""
        (x,), run = ins, range(min(self.axes, default=0), max(self.axes, default=0) + 1)
        counted = all(isinstance(dim, int) for dim in x.shape[1:])
        if not counted or not is_reducible(x) or self.iteration(ins) != "call":
            return None
        rows, size, rest = split_at(x.shape, run.start, run.stop)
        if not isinstance(size, int) or size > MOST or 0 in result.shape:
            return None
        if not run.start or tuple(run) != self.axes:
            return None
        outer, middle, inner = dense_maps((rows, size, rest))
        maps = [AccessMap((outer, middle._replace(shift=i), inner)) for i in range(size)]

        def write(builder: BodyBuilder, read: Read) -> Expr:
            return reduce(partial(call, self.of_two), (read(0, at) for at in maps))

        return GatherRule((rows, 1, rest), write)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        hit = cast(equal(ins[0], self.spread(out, ins)), ins[0].dtype)
        share = div(self.spread(dout, ins), sum_(hit, self.axes, keepdims=True))
        return (mul(hit, share),)


class Max(Extreme):
    """The largest over an axis, several, or all; of bools, whether any is true."""

    of_two = "maximum"

    def reference(self, ins: Sequence[Array]) -> Array:
        return self.by_numpy(np.max, ins)

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return below_largest(ins[0], self.axes)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return ins[0].max(axis)


class Min(Extreme):
    """The smallest over an axis, several, or all; of bools, whether all are true."""

    of_two = "minimum"

    def reference(self, ins: Sequence[Array]) -> Array:
        return self.by_numpy(np.min, ins)

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return below_largest(-ins[0], self.axes)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        (x,) = ins
        if x.dtype in FLOATS:
            return -(-x).max(axis)
        return -1 - (-1 - x).max(axis)  # the lowest whole number has no negative


mean = reducing(Mean)
max_ = reducing(Max, "max_")
min_ = reducing(Min, "min_")
