"""Activations that weigh their argument by a smooth function of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.build import Value, apply
from graphc.ir.op import Array
from graphc.ops.activations.activation import Activation
from graphc.ops.elementwise import add, mul
from graphc.ops.functions import sigmoid, tanh
from graphc.ops.smooth import erf, softplus

GeluForm = Literal["erf", "tanh"]

_GELU, _GELU_CUBE = math.sqrt(2 / math.pi), 0.044715


@dataclass(frozen=True)
class Gelu(Activation):
    """x * P(X <= x) of a standard normal X, exact by erf, or approximate by a tanh.

    Hendrycks and Gimpel 2016 (arXiv:1606.08415).
    """

    name = "gelu"
    form: GeluForm = "erf"

    def of(self, x: Array) -> Array:
        if self.form == "tanh":
            return np.asarray(0.5 * x * (1 + np.tanh(_GELU * (x + _GELU_CUBE * x**3))))
        return np.asarray(0.5 * x * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2))))

    def build(self, x: Value, name: str) -> Value:
        if self.form == "tanh":
            odd = tanh(mul(x, add(mul(mul(x, x), _GELU * _GELU_CUBE), _GELU)))
        else:
            odd = erf(mul(x, math.sqrt(0.5)))
        return mul(mul(x, 0.5), add(odd, 1.0), name=name)


class Silu(Activation):
    """x * sigmoid(x), also called swish."""

    name = "silu"

    def of(self, x: Array) -> Array:
        return np.asarray(x * np.exp(-np.logaddexp(0, -x)))

    def build(self, x: Value, name: str) -> Value:
        return mul(x, sigmoid(x), name=name)


class Mish(Activation):
    """x * tanh(softplus(x)) (Misra 2019, arXiv:1908.08681)."""

    name = "mish"

    def of(self, x: Array) -> Array:
        return np.asarray(x * np.tanh(np.logaddexp(0, x)))

    def build(self, x: Value, name: str) -> Value:
        return mul(x, tanh(softplus(x)), name=name)


def gelu(x: Value, form: GeluForm = "erf", *, name: str | None = None) -> Value:
    """Return x times the share of a standard normal distribution below x.

    `form` is "erf", exact, or "tanh", the approximation that some trained models used.
    """
    if form not in ("erf", "tanh"):
        raise GraphError(
            f"gelu: form {form!r} is not one of erf, tanh",
            loc=caller_loc(),
            hint="'erf' is exact; 'tanh' is what torch calls approximate='tanh'",
        )
    return apply(Gelu(form), x, name=name)


def silu(x: Value, *, name: str | None = None) -> Value:
    """Return x * sigmoid(x), also called swish."""
    return apply(Silu(), x, name=name)


def mish(x: Value, *, name: str | None = None) -> Value:
    """Return x * tanh(softplus(x))."""
    return apply(Mish(), x, name=name)
