"""Trigonometric and hyperbolic functions of each element, and their inverses.

Angles are in radians.  NumPy computes these functions on every backend.
"""

from __future__ import annotations

import numpy as np

from graphc.ops.apply import of_one
from graphc.ops.elementwise import Called

__all__ = ["acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "sin", "sinh", "tan"]


class Sin(Called, ufunc=np.sin, gradient="d_out * cos(x)", onnx="Sin"):
    """The sine of an angle."""


class Cos(Called, ufunc=np.cos, gradient="-(d_out * sin(x))", onnx="Cos"):
    """The cosine of an angle."""


class Tan(Called, ufunc=np.tan, gradient="d_out * (out ** 2 + 1)", onnx="Tan"):
    """The tangent of an angle."""


class Asin(Called, ufunc=np.arcsin, gradient="d_out / sqrt(1 - x ** 2)", onnx="Asin"):
    """The angle between -pi/2 and pi/2 whose sine is x, for x from -1 to 1."""


class Acos(Called, ufunc=np.arccos, gradient="-(d_out / sqrt(1 - x ** 2))", onnx="Acos"):
    """The angle between 0 and pi whose cosine is x, for x from -1 to 1."""


class Atan(Called, ufunc=np.arctan, gradient="d_out / (x ** 2 + 1)", onnx="Atan"):
    """The angle between -pi/2 and pi/2 whose tangent is x."""


class Sinh(Called, ufunc=np.sinh, gradient="d_out * cosh(x)", onnx="Sinh"):
    """The hyperbolic sine of x."""


class Cosh(Called, ufunc=np.cosh, gradient="d_out * sinh(x)", onnx="Cosh"):
    """The hyperbolic cosine of x."""


class Asinh(Called, ufunc=np.arcsinh, gradient="d_out / sqrt(x ** 2 + 1)", onnx="Asinh"):
    """The number whose hyperbolic sine is x."""


class Acosh(Called, ufunc=np.arccosh, gradient="d_out / sqrt(x ** 2 - 1)", onnx="Acosh"):
    """The number from 0 up whose hyperbolic cosine is x, for x from 1 up."""


class Atanh(Called, ufunc=np.arctanh, gradient="d_out / (1 - x ** 2)", onnx="Atanh"):
    """The number whose hyperbolic tangent is x, for x between -1 and 1."""


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
