"""Smooth functions that activations and losses are made of: erf, softplus, log1p, expm1."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphc.ir.build import Builder, Value, apply
from graphc.ir.expr import Axis, Expr, call
from graphc.ir.op import Array, Iteration
from graphc.ir.tensor_type import TensorType
from graphc.ops.elementwise import Unary, add, div, mul, neg
from graphc.ops.functions import exp, sigmoid

_erf = np.vectorize(math.erf, otypes=[np.float64])


class Erf(Unary):
    """The error function: 2 / sqrt(pi) times the integral of e**(-t**2) from 0 to x."""

    inplace = ()
    gradient_text = ("d_out * 2 / sqrt(pi) * exp(-x ** 2)",)

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(_erf(ins[0])).astype(ins[0].dtype)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return call("erf", ins[0])

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        (x,) = ins
        return (mul(dout, mul(exp(neg(mul(x, x))), 2 / math.sqrt(math.pi))),)


class Softplus(Unary):
    """The softplus log(1 + e**x), without overflow for any x."""

    inplace = ()
    gradient_text = ("d_out / (1 + exp(-x))",)

    def reference(self, ins: Sequence[Array]) -> Array:
        (x,) = ins
        return np.asarray(np.logaddexp(x.dtype.type(0), x))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        (x,) = ins
        return call("maximum", x, 0) + call("log", 1 + call("exp", -call("abs", x)))

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (mul(dout, sigmoid(ins[0])),)


class Log1p(Unary):
    """log(1 + x), with all digits near 0; NumPy computes it on every backend."""

    gradient_text = ("d_out / (1 + x)",)

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(np.log1p(ins[0]))

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "call"

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (div(dout, add(ins[0], 1.0)),)


class Expm1(Unary):
    """e ** x - 1, with all digits near 0; NumPy computes it on every backend."""

    gradient_text = ("d_out * (out + 1)",)

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(np.expm1(ins[0]))

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "call"

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (mul(dout, add(out, 1.0)),)


def log1p(x: Value, *, name: str | None = None) -> Value:
    """Return log(1 + x), with all digits near 0."""
    return apply(Log1p(), x, name=name)


def expm1(x: Value, *, name: str | None = None) -> Value:
    """Return e ** x - 1, with all digits near 0."""
    return apply(Expm1(), x, name=name)


def erf(x: Value, *, name: str | None = None) -> Value:
    """Return the error function of x."""
    return apply(Erf(), x, name=name)


def softplus(x: Value, *, name: str | None = None) -> Value:
    """Return log(1 + e**x)."""
    return apply(Softplus(), x, name=name)
