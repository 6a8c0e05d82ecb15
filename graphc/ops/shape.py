"""Reshapes, transposes and casts.

Images of users have their channels first; kernels read them with their channels last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.base.arguments import plain, sizes_of
from graphc.ir.access import AxisMap
from graphc.ir.build import Builder, Value, apply, as_value
from graphc.ir.expr import Axis, Expr, call
from graphc.ir.forms import GatherRule, moved
from graphc.ir.op import Array, Cotangents, Iteration, NoGradient, Op
from graphc.ir.tensor_type import (
    FLOATS,
    ORDERED,
    Batch,
    Dim,
    Shape,
    TensorType,
    count,
    dtype_name,
    shape_at,
    shape_text,
)
from graphc.ops.apply import with_attributes

__all__ = ["cast", "flatten", "reshape", "stop_gradient", "transpose"]


class Move(Op, base=True):
    """The base of ops that move numbers and compute none."""

    is_exact = True
    only_moves = True
    operations = 0


@dataclass(frozen=True)
class Reshape(Move):
    """The same elements in C order under another shape; no copy is made."""

    takes_pairs = True
    is_linear = True
    alias = True
    roles = ("x",)
    gradient_text = ("reshape(d_out, x.shape)",)
    shape: Shape

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return x's type at `shape`; raise ValueError if that has another number of elements."""
        (x,) = ins
        if count(x.shape) != count(self.shape):
            raise ValueError(
                f"shape {shape_text(x.shape)} has {count(x.shape)} elements, "
                f"{shape_text(self.shape)} has {count(self.shape)}"
            )
        return x.with_shape(self.shape)

    def reference(self, ins: Sequence[Array]) -> Array:
        return ins[0].reshape(shape_at(self.shape, 0))

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (reshape(dout, ins[0].shape),)


@dataclass(frozen=True)
class Transpose(Move):
    """x with its axes permuted."""

    takes_pairs = True
    is_linear = True
    roles = ("x",)
    gradient_text = ("d_out.transpose(argsort(axes))",)
    axes: tuple[int, ...]

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return x's type with permuted axes; raise ValueError if they are not an order of x's."""
        (x,) = ins
        if sorted(self.axes) != list(range(x.rank)):
            raise ValueError(
                f"axes {self.axes} are not an order of the axes of {shape_text(x.shape)}"
            )
        return x.with_shape(tuple(x.shape[axis] for axis in self.axes))

    def may_be_view(self, ins: Sequence[TensorType]) -> bool:
        return True

    def reference(self, ins: Sequence[Array]) -> Array:
        return ins[0].transpose(self.axes).copy()

    def gather(self, ins: Sequence[TensorType], result: TensorType) -> GatherRule | None:
        (x,) = ins
        return moved(x.shape, result, self._maps) if self._keeps_rows(x.shape) else None

    @property
    def permutation(self) -> tuple[int, ...]:
        return self.axes

    def _maps(self, axis_maps: list[AxisMap]) -> list[AxisMap]:
        return [axis_maps[axis] for axis in self.axes]

    def _keeps_rows(self, x: Shape) -> bool:
        """Return whether the batch stays first and rows contiguous, as a gather needs it."""
        axes = self.axes
        return bool(x) and axes[-1] == len(x) - 1 and not (isinstance(x[0], Batch) and axes[0])

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        back = tuple(self.axes.index(i) for i in range(len(self.axes)))
        return (transpose(dout, back),)


@dataclass(frozen=True)
class Cast(Op):
    """The same numbers in another dtype; gradients are cast back, and stop at whole numbers."""

    takes_pairs = True
    is_linear = True
    is_exact = True
    roles = ("x",)
    gradient_text = ("d_out.astype(x.dtype)",)
    operations = 0
    dtype: str

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the dtype of x's shape; raise ValueError for `ORDERED`, of which products are."""
        if ORDERED in (self.dtype, ins[0].dtype):
            raise ValueError(
                f"{ORDERED} is the dtype of factors of products alone\n"
                'gc.compile(net, precision={"*": "bf16"}) rounds them'
            )
        return ins[0].with_dtype(self.dtype)

    def reference(self, ins: Sequence[Array]) -> Array:
        return ins[0].astype(self.dtype)

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        """Return the distances to the whole numbers but 0, where the number cut off changes.

        As a bool each number but 0 is true.
        """
        (x,) = ins
        if self.dtype in FLOATS or self.dtype == "bool":
            return None if self.dtype in FLOATS else x
        whole = np.rint(x)
        return np.asarray(x - np.where(whole == 0, np.copysign(1, x), whole))

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "elements"

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        (x,) = ins
        if self.dtype == "bool" and x.dtype != "bool":
            return call("not_equal", x, 0)
        return x.cast(self.dtype)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (cast(dout, ins[0].dtype) if ins[0].type.is_float else None,)


class StopGradient(NoGradient, Move):
    """x itself, through which no gradient flows."""

    takes_pairs = True
    is_linear = True
    alias = True
    stops_gradients = True
    roles = ("x",)

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return ins[0]

    def reference(self, ins: Sequence[Array]) -> Array:
        return ins[0]


@with_attributes(
    example=("(N, 6)", "x, (gc.N, 2, 3)", "(N, 2, 3)"),
    shape="The new shape.  One dimension may be -1: it is computed from the others.",
    returns="Of x's dtype.  No copy is made.",
    raises="If the shapes do not have the same number of elements, or several dimensions are -1.",
)
def reshape(x: Value, shape: Sequence[Dim] | Dim, *, name: str | None = None) -> Value:
    """Return the same elements, in C order, under another shape."""
    x = as_value("reshape", x)
    wanted = sizes_of(shape)
    if wanted.count(-1) > 1:
        raise x.builder.error(Reshape(wanted), f"{wanted} has more than one -1", (x,))
    if -1 in wanted:
        wanted = _solve(x, wanted)
    return apply(Reshape(wanted), x, name=name)


def _solve(x: Value, shape: Shape) -> Shape:
    """Return the shape with -1 replaced by the missing size; raise GraphError if there is none."""
    rest = tuple(dim for dim in shape if dim != -1)
    (elements, rows), (known, held) = (_powers(count(dims)) for dims in (x.shape, rest))
    if known == 0 or elements % known or held > rows:
        message = f"{shape_text(x.shape)} does not reshape to {shape_text(shape)}"
        raise x.builder.error(Reshape(rest), message, (x,))
    missing = elements // known
    free = Batch(missing, rows - held) if missing and rows > held else missing
    return tuple(free if dim == -1 else dim for dim in shape)


def _powers(elements: Dim) -> tuple[int, int]:
    """Return the factor of a number of elements, and the power of N in it."""
    if isinstance(elements, Batch):
        return elements.factor, elements.power
    return elements, 0


@with_attributes(
    example=("(N, 2, 3)", "x", "(N, 6)"),
    x="A value of shape (N, d1, ..., dk).",
    returns="Of shape (N, d1 * ... * dk).",
    raises="If x is a scalar.",
)
def flatten(x: Value, *, name: str | None = None) -> Value:
    """Return x with all axes but the first joined to one."""
    x = as_value("flatten", x)
    if x.type.rank < 1:
        raise x.builder.error(Reshape(()), "a scalar has no rows to keep", (x,))
    return reshape(x, (x.shape[0], count(x.shape[1:])), name=name)


@with_attributes(
    example=("(N, 2, 3)", "x, (0, 2, 1)", "(N, 3, 2)"),
    axes="For each axis of the result the axis of x; by default the order is reversed.",
    returns="Of x's dtype.",
    raises="If `axes` is not an order of x's axes.",
)
def transpose(x: Value, axes: Sequence[int] | None = None, *, name: str | None = None) -> Value:
    """Return x with its axes permuted."""
    x = as_value("transpose", x)
    order = tuple(map(plain, axes)) if axes is not None else tuple(reversed(range(x.type.rank)))
    return apply(Transpose(order), x, name=name)


@with_attributes(
    example=("(N, 3)", 'x, "float64"', "'float64'"),
    show="{}.dtype",
    dtype="The name of a dtype, or NumPy's object for it.",
    returns="Of x's shape.",
    raises="If graphc does not have the dtype.",
)
def cast(x: Value, dtype: Any, *, name: str | None = None) -> Value:
    """Return the same numbers in another dtype.

    Gradients are cast back, and stop at whole numbers.
    """
    x = as_value("cast", x)
    return x.builder.apply(Cast(dtype_name(dtype)), x, name=name)


def as_dtype(x: Value, dtype: str) -> Value:
    """Return x cast to a dtype, or x itself if it has it; a user's `cast` always adds a node."""
    return x if x.dtype == dtype else cast(x, dtype)


@with_attributes(returns="The same numbers, without a copy.", raises="If x is not a value.")
def stop_gradient(x: Value, *, name: str | None = None) -> Value:
    """Return x itself, as a constant of derivatives: no gradient flows through it."""
    return apply(StopGradient(), x, name=name)


def last(type: TensorType) -> TensorType:
    """Return the type (n, *space, c) for a type (n, c, *space)."""
    n, c, *space = type.shape
    return type.with_shape((n, *space, c))


def first(type: TensorType) -> TensorType:
    """Return the type (n, c, *space) for a type (n, *space, c)."""
    n, *space, c = type.shape
    return type.with_shape((n, c, *space))


def last_array(array: Array) -> Array:
    """Return an array (n, c, *space) as (n, *space, c)."""
    return np.moveaxis(array, 1, -1)


def first_array(array: Array) -> Array:
    """Return an array (n, *space, c) as (n, c, *space), in C order."""
    return np.ascontiguousarray(np.moveaxis(array, -1, 1))


def channels_last(x: Value, *, name: str | None = None) -> Value:
    """Return x (n, c, *space) as (n, *space, c); no copy if c is 1 or all of space is."""
    rank = x.type.rank
    if _one(x.shape[1:2]) or _one(x.shape[2:]):
        return reshape(x, last(x.type).shape, name=name)
    return transpose(x, (0, *range(2, rank), 1), name=name)


def channels_first(x: Value, *, name: str | None = None) -> Value:
    """Return x (n, *space, c) as (n, c, *space); no copy if c is 1 or all of space is."""
    rank = x.type.rank
    if _one(x.shape[-1:]) or _one(x.shape[1:-1]):
        return reshape(x, first(x.type).shape, name=name)
    return transpose(x, (0, rank - 1, *range(1, rank - 1)), name=name)


def pixels(x: Value, *, name: str | None = None) -> Value:
    """Return x (n, *space, c) as a matrix with a row for each pixel."""
    return reshape(x, (count(x.shape[:-1]), x.shape[-1]), name=name)


def _one(dims: Shape) -> bool:
    """Return whether all dimensions are 1."""
    return all(dim == 1 for dim in dims)
