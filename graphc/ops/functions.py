"""Elementwise functions such as exp, tanh and erf, and softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np

from graphc.base.arguments import plain
from graphc.ir.build import Builder, Value, apply
from graphc.ir.expr import Axis, Broadcast, Expr, call, select
from graphc.ir.op import Array, Cotangents, Iteration, NoGradient, Op
from graphc.ir.tensor_type import TensorType, check_entries, normal_axis
from graphc.ops.apply import of_one, with_attributes
from graphc.ops.elementwise import Called, Unary, add, div, mul, neg, sub
from graphc.ops.sums import sum_

__all__ = [
    "abs_",
    "erf",
    "exp",
    "expm1",
    "log",
    "log1p",
    "log_softmax",
    "sigmoid",
    "sign",
    "softmax",
    "softplus",
    "sqrt",
    "tanh",
]


class Exp(Unary):
    """The exponential e ** x."""

    finite_hint = "keep its operand small: gc.exp(gc.minimum(x, 80))"
    ufunc = np.exp
    onnx = "Exp"
    gradient_text = ("d_out * out",)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (mul(dout, out),)


class Log(Unary):
    """The natural logarithm of x."""

    finite_hint = "keep its operand above 0: gc.log(gc.maximum(x, 1e-12))"
    ufunc = np.log
    onnx = "Log"
    gradient_text = ("d_out / x",)

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return ins[0]

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (div(dout, ins[0]),)


class Sqrt(Unary):
    """The square root of x."""

    finite_hint = "keep its operand above 0: gc.sqrt(gc.maximum(x, 1e-12))"
    ufunc = np.sqrt
    onnx = "Sqrt"
    gradient_text = ("d_out / (2 * out)",)

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return ins[0]

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (div(mul(dout, 0.5), out),)


class Abs(Unary):
    """The absolute value of x; the gradient is 0 at 0."""

    ufunc = np.absolute
    is_exact = True
    floats_only = False
    onnx = "Abs"
    gradient_text = ("d_out * sign(x)",)

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return ins[0]

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (mul(dout, sign(ins[0])),)


class Sign(NoGradient, Unary):
    """The sign of x: -1, 0 or 1; its gradient is zero."""

    ufunc = np.sign
    is_exact = True
    floats_only = False
    onnx = "Sign"

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "call" if ins[0].dtype.startswith("uint") else "elements"  # uints have no -1

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return ins[0]

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        (x,) = ins
        return select(x > 0, 1, select(x < 0, -1, x))  # x is 0 or NaN there


class Tanh(Unary):
    """The hyperbolic tangent of x."""

    ufunc = np.tanh
    onnx = "Tanh"
    gradient_text = ("d_out * (1 - out ** 2)",)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (mul(dout, sub(1.0, mul(out, out))),)


class Sigmoid(Unary):
    """The sigmoid 1 / (1 + e**-x), without overflow for any x."""

    onnx = "Sigmoid"
    gradient_text = ("d_out * out * (1 - out)",)
    operations = 3

    def reference(self, ins: Sequence[Array]) -> Array:
        (x,) = ins
        small = np.exp(-np.abs(x))
        return np.asarray(np.where(x >= 0, 1, small) / (1 + small)).astype(x.dtype)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        (x,) = ins
        small = call("exp", -call("abs", x))
        return select(x >= 0, 1, small) / (1 + small)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (mul(dout, mul(out, sub(1.0, out))),)


@dataclass(frozen=True)
class AlongAxis(Op, base=True):
    """The base of softmax and its logarithm: an op over one axis that keeps the shape of x."""

    takes_pairs = True
    roles = ("x",)
    inplace = (0,)
    axis: int = -1

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


class Softmax(AlongAxis):
    """e**x over an axis, scaled to sum to 1; stable for any finite x."""

    gradient_text = ("out * (d_out - sum(d_out * out, axis))",)
    operations = 4

    def reference(self, ins: Sequence[Array]) -> Array:
        (x,) = ins
        e = np.exp(x - x.max(axis=self.axis, keepdims=True))
        return np.asarray(e / e.sum(axis=self.axis, keepdims=True))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        (x,) = ins
        e = call("exp", x - x.max(axis))
        return e * (1 / e.sum(axis))  # one division a row

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        weighted = mul(dout, out)
        return (sub(weighted, mul(out, sum_(weighted, self.axis, keepdims=True))),)


class LogSoftmax(AlongAxis):
    """The logarithm of softmax, without the logarithm of a number that underflowed."""

    gradient_text = ("d_out - exp(out) * sum(d_out, axis)",)
    operations = 5

    def reference(self, ins: Sequence[Array]) -> Array:
        (x,) = ins
        shifted = x - x.max(axis=self.axis, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=self.axis, keepdims=True)))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        shifted = ins[0] - ins[0].max(axis)
        return shifted - call("log", call("exp", shifted).sum(axis))

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (sub(dout, mul(exp(out), sum_(dout, self.axis, keepdims=True))),)


@with_attributes()
def softmax(x: Value, axis: SupportsIndex = -1, *, name: str | None = None) -> Value:
    """Return e**x, scaled to sum to 1 over an axis; stable for any finite x."""
    return apply(Softmax(plain(axis)), x, name=name)


@with_attributes()
def log_softmax(x: Value, axis: SupportsIndex = -1, *, name: str | None = None) -> Value:
    """Return the logarithm of `softmax` over an axis, exact also where that underflows."""
    return apply(LogSoftmax(plain(axis)), x, name=name)


_erf = np.vectorize(math.erf, otypes=[np.float64])


class Erf(Unary):
    """The error function: 2 / sqrt(pi) times the integral of e**(-t**2) from 0 to x."""

    inplace = ()
    onnx = "Erf"
    gradient_text = ("d_out * 2 / sqrt(pi) * exp(-x ** 2)",)

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(_erf(ins[0])).astype(ins[0].dtype)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        (x,) = ins
        return (mul(dout, mul(exp(neg(mul(x, x))), 2 / math.sqrt(math.pi))),)


class Softplus(Unary):
    """The softplus log(1 + e**x), without overflow for any x."""

    inplace = ()
    onnx = "Softplus"
    gradient_text = ("d_out / (1 + exp(-x))",)

    def reference(self, ins: Sequence[Array]) -> Array:
        (x,) = ins
        return np.asarray(np.logaddexp(x.dtype.type(0), x))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        (x,) = ins
        return call("maximum", x, 0) + call("log", 1 + call("exp", -call("abs", x)))

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (mul(dout, sigmoid(ins[0])),)


class Log1p(Called):
    """The logarithm of 1 + x, with all digits near 0."""

    ufunc = np.log1p
    gradient_text = ("d_out / (1 + x)",)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (div(dout, add(ins[0], 1.0)),)


class Expm1(Called):
    """The exponential of x less 1, e ** x - 1, with all digits near 0."""

    ufunc = np.expm1
    gradient_text = ("d_out * (out + 1)",)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (mul(dout, add(out, 1.0)),)


exp = of_one(Exp())
log = of_one(Log())
sqrt = of_one(Sqrt())
abs_ = of_one(Abs(), "abs_")
sign = of_one(Sign())
tanh = of_one(Tanh())
sigmoid = of_one(Sigmoid())
log1p = of_one(Log1p())
expm1 = of_one(Expm1())
erf = of_one(Erf())
softplus = of_one(Softplus())
