"""Elementwise functions such as exp, tanh and erf, and softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np

from graphc.base.arguments import plain
from graphc.ir.build import Value, apply
from graphc.ir.by_formula import ByFormula
from graphc.ir.expr import Axis, Broadcast, Expr, call, select
from graphc.ir.op import Array, Iteration, NoGradient
from graphc.ir.tensor_type import TensorType, check_entries, normal_axis
from graphc.ops.apply import of_one, with_attributes
from graphc.ops.elementwise import Called, Unary

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


class Exp(Unary, ufunc=np.exp, gradient="d_out * out", onnx="Exp"):
    """The exponential e ** x."""

    finite_hint = "keep its operand small: gc.exp(gc.minimum(x, 80))"


class Log(Unary, ufunc=np.log, gradient="d_out / x", onnx="Log"):
    """The natural logarithm of x."""

    finite_hint = "keep its operand above 0: gc.log(gc.maximum(x, 1e-12))"
    kink = "x"


class Sqrt(Unary, ufunc=np.sqrt, gradient="d_out * 0.5 / out", onnx="Sqrt"):
    """The square root of x."""

    finite_hint = "keep its operand above 0: gc.sqrt(gc.maximum(x, 1e-12))"
    kink = "x"


class Abs(Unary, ufunc=np.absolute, gradient="d_out * sign(x)", onnx="Abs"):
    """The absolute value of x; the gradient is 0 at 0."""

    is_exact = True
    floats_only = False
    kink = "x"


class Sign(NoGradient, Unary, ufunc=np.sign, onnx="Sign"):
    """The sign of x: -1, 0 or 1; its gradient is zero."""

    is_exact = True
    floats_only = False
    kink = "x"

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "call" if ins[0].dtype.startswith("uint") else "elements"  # uints have no -1

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        (x,) = ins
        return select(x > 0, 1, select(x < 0, -1, x))  # x is 0 or NaN there


class Tanh(Unary, ufunc=np.tanh, gradient="d_out * (1 - out ** 2)", onnx="Tanh"):
    """The hyperbolic tangent of x."""


class Sigmoid(Unary, gradient="d_out * (out * (1 - out))", onnx="Sigmoid"):
    """The sigmoid 1 / (1 + e**-x), without overflow for any x."""

    operations = 3

    def reference(self, ins: Sequence[Array]) -> Array:
        (x,) = ins
        small = np.exp(-np.abs(x))
        return np.asarray(np.where(x >= 0, 1, small) / (1 + small)).astype(x.dtype)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        (x,) = ins
        small = call("exp", -call("abs", x))
        return select(x >= 0, 1, small) / (1 + small)


@dataclass(frozen=True)
class AlongAxis(ByFormula, base=True):
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

    gradient_text = ("d_out * out - out * sum(d_out * out, axis)",)
    operations = 4

    def reference(self, ins: Sequence[Array]) -> Array:
        (x,) = ins
        e = np.exp(x - x.max(axis=self.axis, keepdims=True))
        return np.asarray(e / e.sum(axis=self.axis, keepdims=True))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        (x,) = ins
        e = call("exp", x - x.max(axis))
        return e * (1 / e.sum(axis))  # one division a row


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


@with_attributes()
def softmax(x: Value, axis: SupportsIndex = -1, *, name: str | None = None) -> Value:
    """Return e**x, scaled to sum to 1 over an axis; stable for any finite x."""
    return apply(Softmax(plain(axis)), x, name=name)


@with_attributes()
def log_softmax(x: Value, axis: SupportsIndex = -1, *, name: str | None = None) -> Value:
    """Return the logarithm of `softmax` over an axis, exact also where that underflows."""
    return apply(LogSoftmax(plain(axis)), x, name=name)


_erf = np.vectorize(math.erf, otypes=[np.float64])


class Erf(Unary, gradient=f"d_out * (exp(-x ** 2) * {2 / math.sqrt(math.pi)})", onnx="Erf"):
    """The error function: 2 / sqrt(pi) times the integral of e**(-t**2) from 0 to x."""

    inplace = ()

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(_erf(ins[0])).astype(ins[0].dtype)


class Softplus(Unary, gradient="d_out * sigmoid(x)", onnx="Softplus"):
    """The softplus log(1 + e**x), without overflow for any x."""

    inplace = ()

    def reference(self, ins: Sequence[Array]) -> Array:
        (x,) = ins
        return np.asarray(np.logaddexp(x.dtype.type(0), x))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        (x,) = ins
        return call("maximum", x, 0) + call("log", 1 + call("exp", -call("abs", x)))


class Log1p(Called, ufunc=np.log1p, gradient="d_out / (x + 1)"):
    """The logarithm of 1 + x, with all digits near 0."""


class Expm1(Called, ufunc=np.expm1, gradient="d_out * (out + 1)"):
    """The exponential of x less 1, e ** x - 1, with all digits near 0."""


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
