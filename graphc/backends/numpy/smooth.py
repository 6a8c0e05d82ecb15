"""Kernels of erf and softplus, for which NumPy has no ufuncs, or slow ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from graphc.backends.coefficients import ERF, ERFCX
from graphc.backends.numpy.kernel import Call, Kernel, number
from graphc.ir.op import Array, Op

_LARGEST = {"float32": 4.0, "float64": 6.0}
"""The bound from which on erf is 1 but for rounding."""


def erf(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls for the error function, in two parts.

    Up to 1 it is x + x * ERF(x**2), beyond it 1 - e**(-t**2) * ERFCX((t - 2) / (t + 2)).
    """
    (x,), (t, u, inner, small) = ins, scratch
    dtype = str(x.dtype)
    one, two = number(1, x), number(2, x)
    return (
        partial(np.square, x, out=t),
        *_polynomial(t, ERF[dtype], inner),
        partial(np.multiply, inner, x, out=inner),
        partial(np.add, inner, x, out=inner),
        partial(np.absolute, x, out=t),
        partial(np.less_equal, t, one, out=small),
        partial(np.minimum, t, number(_LARGEST[dtype], x), out=t),
        partial(np.add, t, two, out=out),
        partial(np.subtract, t, two, out=u),
        partial(np.divide, u, out, out=u),
        *_polynomial(u, ERFCX[dtype], out),
        partial(np.square, t, out=t),
        partial(np.negative, t, out=t),
        partial(np.exp, t, out=t),
        partial(np.multiply, out, t, out=out),
        partial(np.subtract, one, out, out=out),
        partial(np.copysign, out, x, out=out),
        partial(np.copyto, out, inner, where=small),
    )


def _polynomial(x: Array, powers: Sequence[float], out: Array) -> Iterator[Call]:
    """Yield calls that evaluate a polynomial by Horner's rule, highest power first."""
    first, *rest = (number(power, x) for power in powers)
    yield partial(out.fill, first)
    for power in rest:
        yield partial(np.multiply, out, x, out=out)
        yield partial(np.add, out, power, out=out)


def softplus(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls for max(x, 0) + log(1 + e**-|x|)."""
    (x,), (above,) = ins, scratch
    return (
        partial(np.absolute, x, out=out),
        partial(np.negative, out, out=out),
        partial(np.exp, out, out=out),
        partial(np.log1p, out, out=out),
        partial(x.clip, number(0, x), number(np.inf, x), above),
        partial(np.add, out, above, out=out),
    )


SMOOTH: dict[str, Kernel] = {"erf": erf, "softplus": softplus}
