"""Smooth functions of each element, and softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np

from graphc.base.arguments import plain, takes
from graphc.ir.build import Builder, Value, apply
from graphc.ir.expr import Axis, Broadcast, Expr, call, select
from graphc.ir.op import Array, Iteration, Op
from graphc.ir.tensor_type import TensorType, check_entries, normal_axis
from graphc.ops.elementwise import Unary, div, mul, sub
from graphc.ops.reduce import sum_


class Exp(Unary):
    """The exponential e ** x."""

    gradient_text = ("d_out * out",)

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(np.exp(ins[0]))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return call("exp", ins[0])

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (mul(dout, out),)


class Log(Unary):
    """The natural logarithm of x."""

    gradient_text = ("d_out / x",)

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(np.log(ins[0]))

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return ins[0]

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return call("log", ins[0])

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (div(dout, ins[0]),)


class Sqrt(Unary):
    """The square root of x."""

    gradient_text = ("d_out / (2 * out)",)

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(np.sqrt(ins[0]))

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return ins[0]

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return call("sqrt", ins[0])

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (div(mul(dout, 0.5), out),)


class Abs(Unary):
    """The absolute value of x; the gradient is 0 at 0."""

    is_exact = True
    floats_only = False
    gradient_text = ("d_out * sign(x)",)

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(np.abs(ins[0]))

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return ins[0]

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return call("abs", ins[0])

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (mul(dout, sign(ins[0])),)


class Sign(Unary):
    """The sign of x: -1, 0 or 1; its gradient is zero."""

    is_exact = True
    floats_only = False
    gradient_text = ("",)

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "call" if ins[0].dtype.startswith("uint") else "elements"  # uints have no -1

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(np.sign(ins[0]))

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return ins[0]

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        (x,) = ins
        return select(x > 0, 1, select(x < 0, -1, x))  # x is 0 or NaN there

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (None,)


class Tanh(Unary):
    """The hyperbolic tangent of x."""

    gradient_text = ("d_out * (1 - out ** 2)",)

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(np.tanh(ins[0]))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return call("tanh", ins[0])

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (mul(dout, sub(1.0, mul(out, out))),)


class Sigmoid(Unary):
    """The sigmoid 1 / (1 + e**-x), without overflow for any x."""

    gradient_text = ("d_out * out * (1 - out)",)

    def reference(self, ins: Sequence[Array]) -> Array:
        (x,) = ins
        small = np.exp(-np.abs(x))
        return np.asarray(np.where(x >= 0, 1, small) / (1 + small)).astype(x.dtype)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        (x,) = ins
        small = call("exp", -call("abs", x))
        return select(x >= 0, 1, small) / (1 + small)

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (mul(dout, mul(out, sub(1.0, out))),)


class AlongAxis(Op):
    """A normalisation over one axis; the result has the shape of x."""

    roles = ("x",)
    inplace = (0,)
    axis: int

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (x,) = ins
        if not x.is_float:
            raise ValueError(f"x is {x.dtype}, {self.name} takes floats")
        check_entries(x.shape, (normal_axis(self.axis, x.rank),))
        return x

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        rank = ins[0].rank
        last = rank > 1 and normal_axis(self.axis, rank) == rank - 1
        return "columns" if last else "call"

    def lead(self, ins: Sequence[TensorType]) -> int:
        return ins[0].rank - 1

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return ("each",)

    def row(self, x: TensorType) -> TensorType:
        """Return the type of x with size 1 in the axis: one number for each slice."""
        axis = normal_axis(self.axis, x.rank)
        return x.with_shape((*x.shape[:axis], 1, *x.shape[axis + 1 :]))


@dataclass(frozen=True)
class Softmax(AlongAxis):
    """e**x over an axis, scaled to sum to 1; stable for any finite x."""

    gradient_text = ("out * (d_out - sum(d_out * out, axis))",)
    axis: int = -1

    def reference(self, ins: Sequence[Array]) -> Array:
        (x,) = ins
        e = np.exp(x - x.max(axis=self.axis, keepdims=True))
        return np.asarray(e / e.sum(axis=self.axis, keepdims=True))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        (x,) = ins
        e = call("exp", x - x.max(axis))
        return e * (1 / e.sum(axis))

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        weighted = mul(dout, out)
        return (sub(weighted, mul(out, sum_(weighted, self.axis, keepdims=True))),)


@dataclass(frozen=True)
class LogSoftmax(AlongAxis):
    """The logarithm of softmax, without the logarithm of a number that underflowed."""

    name = "log_softmax"
    gradient_text = ("d_out - exp(out) * sum(d_out, axis)",)
    axis: int = -1

    def reference(self, ins: Sequence[Array]) -> Array:
        (x,) = ins
        shifted = x - x.max(axis=self.axis, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=self.axis, keepdims=True)))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        shifted = ins[0] - ins[0].max(axis)
        return shifted - call("log", call("exp", shifted).sum(axis))

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (sub(dout, mul(exp(out), sum_(dout, self.axis, keepdims=True))),)


def exp(x: Value, *, name: str | None = None) -> Value:
    """Return e ** x."""
    return apply(Exp(), x, name=name)


def log(x: Value, *, name: str | None = None) -> Value:
    """Return the natural logarithm of x."""
    return apply(Log(), x, name=name)


def sqrt(x: Value, *, name: str | None = None) -> Value:
    """Return the square root of x."""
    return apply(Sqrt(), x, name=name)


def abs_(x: Value, *, name: str | None = None) -> Value:
    """Return the absolute value of x; the gradient is 0 at 0."""
    return apply(Abs(), x, name=name)


def sign(x: Value, *, name: str | None = None) -> Value:
    """Return the sign of x: -1, 0 or 1; its gradient is zero."""
    return apply(Sign(), x, name=name)


def tanh(x: Value, *, name: str | None = None) -> Value:
    """Return the hyperbolic tangent of x."""
    return apply(Tanh(), x, name=name)


def sigmoid(x: Value, *, name: str | None = None) -> Value:
    """Return 1 / (1 + e**-x)."""
    return apply(Sigmoid(), x, name=name)


@takes("gc.softmax(x, axis=-1)", dim="it is axis")
def softmax(x: Value, axis: SupportsIndex = -1, *, name: str | None = None) -> Value:
    """Return the probabilities e**x, scaled to sum to 1 over an axis."""
    return apply(Softmax(plain(axis)), x, name=name)


@takes("gc.log_softmax(x, axis=-1)", dim="it is axis")
def log_softmax(x: Value, axis: SupportsIndex = -1, *, name: str | None = None) -> Value:
    """Return the logarithms of the probabilities over an axis."""
    return apply(LogSoftmax(plain(axis)), x, name=name)
