"""Activations that approach a level exponentially below 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphc.ir.build import Value, apply
from graphc.ir.op import Array
from graphc.ops.activations.activation import Activation, above_zero
from graphc.ops.elementwise import div, mul, sub
from graphc.ops.functions import tanh
from graphc.ops.select import clip, where

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


@dataclass(frozen=True)
class Elu(Activation):
    """x above 0, else alpha * (e**x - 1) (Clevert et al. 2015, arXiv:1511.07289)."""

    name = "elu"
    alpha: float = 1.0

    def of(self, x: Array) -> Array:
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0)))

    def build(self, x: Value, name: str) -> Value:
        below = _expm1_below(clip(x, None, 0.0))
        return where(x > 0, x, mul(below, self.alpha), name=name)


class Selu(Activation):
    """scale * elu(x, alpha) with the numbers that keep mean 0 and variance 1.

    Klambauer et al. 2017 (arXiv:1706.02515).
    """

    name = "selu"

    def of(self, x: Array) -> Array:
        return np.asarray(_SELU_SCALE * Elu(_SELU_ALPHA).of(x))

    def build(self, x: Value, name: str) -> Value:
        return mul(Elu(_SELU_ALPHA).build(x, f"{name}.elu"), _SELU_SCALE, name=name)


@dataclass(frozen=True)
class Celu(Activation):
    """x above 0, else alpha * (e**(x / alpha) - 1) (Barron 2017, arXiv:1704.07483)."""

    name = "celu"
    alpha: float = 1.0

    def of(self, x: Array) -> Array:
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0) / self.alpha))

    def build(self, x: Value, name: str) -> Value:
        below = _expm1_below(mul(clip(x, None, 0.0), 1 / self.alpha))
        return where(x > 0, x, mul(below, self.alpha), name=name)


def _expm1_below(x: Value) -> Value:
    """Return e**x - 1 for x up to 0, with all digits near 0, where e**x - 1 would lose them.

    With t = tanh(x / 2), e**x = (1 + t) / (1 - t).
    """
    t = tanh(mul(x, 0.5))
    return div(mul(t, 2.0), sub(1.0, t))


def elu(x: Value, alpha: float = 1.0, *, name: str | None = None) -> Value:
    """Return x where it is above 0, else alpha * (e**x - 1)."""
    return apply(Elu(float(alpha)), x, name=name)


def selu(x: Value, *, name: str | None = None) -> Value:
    """Return elu with the numbers that keep mean 0 and variance 1.

    This is for weights that start with variance 1 / inputs.
    """
    return apply(Selu(), x, name=name)


def celu(x: Value, alpha: float = 1.0, *, name: str | None = None) -> Value:
    """Return x where it is above 0, else alpha * (e**(x / alpha) - 1); alpha is above 0."""
    return apply(Celu(above_zero("celu", "alpha", alpha)), x, name=name)
