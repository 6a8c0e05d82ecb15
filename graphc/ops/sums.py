"""Sums over axes and repetition along them, each of which is the gradient of the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol, SupportsIndex

import numpy as np

from graphc.base.arguments import sizes_of, takes
from graphc.ir.access import AxisMap
from graphc.ir.build import Builder, Value, as_value, misfit
from graphc.ir.expr import Axis, Broadcast, Expr
from graphc.ir.forms import GatherRule, moved
from graphc.ir.op import Array, Cotangents, Iteration, Op
from graphc.ir.tensor_type import Dim, Shape, TensorType, broadcast, normal_axes, shape_text
from graphc.kernels.iteration_space import elements, leads
from graphc.ops.apply import check_float, described, with_attributes
from graphc.ops.shape import reshape

__all__ = ["broadcast_to", "sum_"]

Axes = SupportsIndex | Iterable[SupportsIndex] | None


def unbroadcast(value: Value, operand: Value) -> Value:
    """Sum a cotangent over the axes that `operand` was broadcast over."""
    if value.shape == operand.shape:
        return value
    pad = len(value.shape) - len(operand.shape)
    shape = (1,) * pad + operand.shape
    axes = tuple(i for i, dim in enumerate(shape) if dim == 1 and value.shape[i] != 1)
    if axes:
        value = sum_(value, axes, keepdims=True)
    return value if value.shape == operand.shape else reshape(value, operand.shape)


def reduced_shape(shape: Shape, axes: tuple[int, ...], keepdims: bool = False) -> Shape:
    """Return the shape after a reduction over `axes`."""
    if keepdims:
        return tuple(1 if i in axes else dim for i, dim in enumerate(shape))
    return tuple(dim for i, dim in enumerate(shape) if i not in axes)


def is_reducible(x: TensorType) -> bool:
    """Return whether a kernel reduces numbers of this dtype."""
    return x.is_float or x.dtype in ("int32", "int64")


def repeated(x: TensorType, result: TensorType) -> GatherRule | None:
    """Return the rule that repeats x over axes between others; None where a broadcast kind does."""
    if elements([x], result) == "elements":
        return None
    pad = [AxisMap(0, 1)] * (result.rank - x.rank)

    def repeat(maps: list[AxisMap]) -> list[AxisMap]:
        sizes = zip((*pad, *maps), result.shape, strict=True)
        return [at if at.size == size else AxisMap(0, size) for at, size in sizes]

    return moved(x.shape, result, repeat)


@dataclass(frozen=True)
class Reduction(Op, base=True):
    """The base of reductions: one number from each slice over `axes`."""

    takes_pairs = True
    roles = ("x",)
    floats_only: ClassVar[bool] = False
    axes: tuple[int, ...]
    keepdims: bool = False

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return x's type without the axes; raise ValueError if x does not have them."""
        (x,) = ins
        if self.floats_only:
            check_float(self, "x", x)
        if any(not 0 <= axis < x.rank for axis in self.axes):
            raise ValueError(f"axes {self.axes} do not exist in shape {shape_text(x.shape)}")
        return x.with_shape(reduced_shape(x.shape, self.axes, self.keepdims))

    def by_row(self, ins: Sequence[TensorType]) -> bool:
        """Return True, also for a call: of the rows' own axis no row is left."""
        return True

    def by_numpy(self, function: Callable[..., Any], ins: Sequence[Array]) -> Array:
        """Reduce x by a function of NumPy."""
        return np.asarray(function(ins[0], axis=self.axes, keepdims=self.keepdims))

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        """Return "rows", "columns" or "all"; "call" for short numbers, or if no matrix fits."""
        rank = ins[0].rank
        if not is_reducible(ins[0]):
            return "call"
        if self.axes == tuple(range(rank)):
            return "all"
        if rank < 2 or self._lead(ins[0].shape) is None:
            return "call"
        return "rows" if 0 in self.axes else "columns"

    def lead(self, ins: Sequence[TensorType]) -> int:
        return self._lead(ins[0].shape) or 1

    def _lead(self, shape: Shape) -> int | None:
        """Return how many leading axes are the rows of a matrix reduced over one axis, or None."""
        for lead in leads(shape):
            if self.axes in (tuple(range(lead)), tuple(range(lead, len(shape)))):
                return lead
        return None

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return ("each",)

    def spread(self, value: Value, ins: Sequence[Value]) -> Value:
        """Return a reduced value with reduction axes of size 1, ready to broadcast."""
        kept = reduced_shape(ins[0].shape, self.axes, keepdims=True)
        return value if value.shape == kept else reshape(value, kept)


class Sum(Reduction):
    """The sum over an axis, several, or all."""

    is_linear = True
    gradient_text = ("spread(d_out)",)

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        if ins[0].dtype == "bool":
            raise ValueError("x is bool, sum takes numbers\ncast it: gc.cast(x, 'float32')")
        return super().infer(ins)

    def reference(self, ins: Sequence[Array]) -> Array:
        return self.by_numpy(partial(np.sum, dtype=ins[0].dtype), ins)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return ins[0].sum(axis)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (b.apply(BroadcastTo(ins[0].shape), self.spread(dout, ins)),)


@dataclass(frozen=True)
class BroadcastTo(Op):
    """x repeated over its axes of size 1 until it has `shape`."""

    takes_pairs = True
    is_exact = True
    broadcasts = True
    roles = ("x",)
    gradient_text = ("d_out",)
    operations = 0
    shape: Shape

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return x's type at `shape`; raise ValueError if x's shape does not broadcast to it."""
        (x,) = ins
        if broadcast(x.shape, self.shape) != self.shape:
            raise ValueError(
                f"shape {shape_text(x.shape)} does not broadcast to {shape_text(self.shape)}"
            )
        return x.with_shape(self.shape)

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.array(np.broadcast_to(ins[0], self.shape))  # type: ignore[arg-type]

    def may_be_view(self, ins: Sequence[TensorType]) -> bool:
        return all(dim == 1 for dim in ins[0].shape)

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return elements(ins, self.infer(ins))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return ins[0]

    def gather(self, ins: Sequence[TensorType], result: TensorType) -> GatherRule | None:
        return repeated(ins[0], result)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (unbroadcast(dout, ins[0]),)


OF_TWO = {"sum": "a + b", "max": "gc.maximum(a, b)", "min": "gc.minimum(a, b)"}
"""The expression for two values, by the reduction that was asked for."""


class OverAxes(Protocol):
    """A function of `graphc` that reduces an axis, several, or all."""

    def __call__(
        self, x: Value, axis: Axes = None, keepdims: bool = False, *, name: str | None = None
    ) -> Value: ...


over_axes = with_attributes(
    example=("(N, 3, 5)", "x, axis=1", "(N, 5)"),
    axis="A whole number, several, or None for all axes; numbers below 0 count from the last axis.",
    keepdims="True to keep these axes, with size 1.",
    returns="Of x's dtype, without these axes.",
    raises="If x does not have such an axis, or the op does not take x's dtype.",
)
"""The decorator for other functions that reduce axes."""


def reducing(kind: type[Reduction], called: str = "") -> OverAxes:
    """Return the function that reduces a value by an op; its name is by default the op's."""

    def function(
        x: Value, axis: Axes = None, keepdims: bool = False, *, name: str | None = None
    ) -> Value:
        x = as_value(kind.name, x)
        if isinstance(axis, Value):
            meant = f"\nof two values: {OF_TWO[kind.name]}" if kind.name in OF_TWO else ""
            message = f"{kind.name}: axis is a value of the net, not a whole number{meant}"
            raise misfit(message, x=x, axis=axis)
        try:
            axes = normal_axes(axis, x.type.rank)
        except ValueError as error:
            raise x.builder.error(kind((), keepdims), str(error), (x,), name) from None
        return x.builder.apply(kind(axes, keepdims), x, name=name)

    made = over_axes(described(function, kind, called))
    return takes("gc.sum(x, axis=1)")(made)


sum_ = reducing(Sum, "sum_")


@with_attributes(
    example=("(N, 1)", "x, (gc.N, 5)", "(N, 5)"),
    shape="The wanted shape; new axes come before those of x.",
    returns="Of `shape` and x's dtype.",
    raises="If x does not broadcast to the shape.",
)
def broadcast_to(x: Value, shape: Sequence[Dim] | Dim, *, name: str | None = None) -> Value:
    """Return x repeated over its axes of size 1 until it has a shape."""
    x = as_value("broadcast_to", x)
    return x.builder.apply(BroadcastTo(sizes_of(shape)), x, name=name)
