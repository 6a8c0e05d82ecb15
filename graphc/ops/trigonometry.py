"""Trigonometric and hyperbolic functions of each element, and their inverses.

Angles are in radians.  NumPy computes these functions on every backend.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.build import Builder, Value
from graphc.ir.op import Cotangents
from graphc.ops.apply import of_one
from graphc.ops.elementwise import Called, add, div, mul, neg, sub
from graphc.ops.functions import sqrt

__all__ = ["acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "sin", "sinh", "tan"]


class Sin(Called):
    """The sine of an angle."""

    ufunc = np.sin
    onnx = "Sin"
    gradient_text = ("d_out * cos(x)",)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (mul(dout, cos(ins[0])),)


class Cos(Called):
    """The cosine of an angle."""

    ufunc = np.cos
    onnx = "Cos"
    gradient_text = ("-d_out * sin(x)",)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (neg(mul(dout, sin(ins[0]))),)


class Tan(Called):
    """The tangent of an angle."""

    ufunc = np.tan
    onnx = "Tan"
    gradient_text = ("d_out * (1 + out ** 2)",)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (mul(dout, add(mul(out, out), 1.0)),)


class Asin(Called):
    """The angle between -pi/2 and pi/2 whose sine is x, for x from -1 to 1."""

    ufunc = np.arcsin
    onnx = "Asin"
    gradient_text = ("d_out / sqrt(1 - x ** 2)",)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        (x,) = ins
        return (div(dout, sqrt(sub(1.0, mul(x, x)))),)


class Acos(Called):
    """The angle between 0 and pi whose cosine is x, for x from -1 to 1."""

    ufunc = np.arccos
    onnx = "Acos"
    gradient_text = ("-d_out / sqrt(1 - x ** 2)",)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        (x,) = ins
        return (neg(div(dout, sqrt(sub(1.0, mul(x, x))))),)


class Atan(Called):
    """The angle between -pi/2 and pi/2 whose tangent is x."""

    ufunc = np.arctan
    onnx = "Atan"
    gradient_text = ("d_out / (1 + x ** 2)",)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        (x,) = ins
        return (div(dout, add(mul(x, x), 1.0)),)


class Sinh(Called):
    """The hyperbolic sine of x."""

    ufunc = np.sinh
    onnx = "Sinh"
    gradient_text = ("d_out * cosh(x)",)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (mul(dout, cosh(ins[0])),)


class Cosh(Called):
    """The hyperbolic cosine of x."""

    ufunc = np.cosh
    onnx = "Cosh"
    gradient_text = ("d_out * sinh(x)",)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (mul(dout, sinh(ins[0])),)


class Asinh(Called):
    """The number whose hyperbolic sine is x."""

    ufunc = np.arcsinh
    onnx = "Asinh"
    gradient_text = ("d_out / sqrt(x ** 2 + 1)",)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        (x,) = ins
        return (div(dout, sqrt(add(mul(x, x), 1.0))),)


class Acosh(Called):
    """The number from 0 up whose hyperbolic cosine is x, for x from 1 up."""

    ufunc = np.arccosh
    onnx = "Acosh"
    gradient_text = ("d_out / sqrt(x ** 2 - 1)",)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        (x,) = ins
        return (div(dout, sqrt(sub(mul(x, x), 1.0))),)


class Atanh(Called):
    """The number whose hyperbolic tangent is x, for x between -1 and 1."""

    ufunc = np.arctanh
    onnx = "Atanh"
    gradient_text = ("d_out / (1 - x ** 2)",)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        (x,) = ins
        return (div(dout, sub(1.0, mul(x, x))),)


sin = of_one(Sin())
cos = of_one(Cos())
tan = of_one(Tan())
asin = of_one(Asin())
acos = of_one(Acos())
atan = of_one(Atan())
sinh = of_one(Sinh())
cosh = of_one(Cosh())
asinh = of_one(Asinh())
acosh = of_one(Acosh())
atanh = of_one(Atanh())
