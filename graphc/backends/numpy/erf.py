"""The error function in NumPy, which lacks it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from graphc.backends.backend import Call
from graphc.backends.coefficients import ERF, ERFCX
from graphc.backends.numpy.functions import Function
from graphc.backends.numpy.values import number
from graphc.ir.op import Array

_LARGEST = {"float32": 4.0, "float64": 6.0}
"""The x from which erf(x) rounds to 1."""


def _erf(out: Array, x: Array, t: Array, u: Array, inner: Array, small: Array) -> Sequence[Call]:
    """Return calls for the error function, in two parts.

    Up to 1 it is x + x * ERF(x**2), beyond it 1 - e**(-t**2) * ERFCX((t - 2) / (t + 2)).
    """
    dtype = str(out.dtype)
    one, two = number(1, dtype), number(2, dtype)
    return (
        partial(np.square, x, t),
        *_polynomial(t, ERF[dtype], inner),
        partial(np.multiply, inner, x, inner),
        partial(np.add, inner, x, inner),
        partial(np.absolute, x, t),
        partial(np.less_equal, t, one, small),
        partial(np.minimum, t, number(_LARGEST[dtype], dtype), out=t),
        partial(np.add, t, two, out),
        partial(np.subtract, t, two, u),
        partial(np.divide, u, out, u),
        *_polynomial(u, ERFCX[dtype], out),
        partial(np.square, t, t),
        partial(np.negative, t, t),
        partial(np.exp, t, t),
        partial(np.multiply, out, t, out),
        partial(np.subtract, one, out, out),
        partial(np.copysign, out, x, out),
        partial(np.copyto, out, inner, where=small),
    )


def _polynomial(x: Array, powers: Sequence[float], out: Array) -> Iterator[Call]:
    """Yield calls that evaluate a polynomial by Horner's rule, highest power first."""
    first, *rest = (number(power, x.dtype) for power in powers)
    yield partial(out.fill, first)
    for power in rest:
        yield partial(np.multiply, out, x, out)
        yield partial(np.add, out, power, out)


def rule() -> Function:
    """Return the rule, with the dtypes of its work."""
    return Function(_erf, ("", "", "", "bool"), ())
