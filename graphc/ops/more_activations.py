"""Activations that are seldom used: celu, thresholded_relu, shrink, relu6, hard_tanh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphc.build import Value, apply
from graphc.errors import GraphError
from graphc.loc import caller_loc
from graphc.op import Array
from graphc.ops.activations import Activation
from graphc.ops.elementwise import add, mul, sub
from graphc.ops.functions import exp
from graphc.ops.select import clip, where


@dataclass(frozen=True)
class Celu(Activation):
    """x above 0, else alpha * (e**(x / alpha) - 1) (Barron 2017, arXiv:1704.07483)."""

    name = "celu"
    alpha: float = 1.0

    def of(self, x: Array) -> Array:
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0) / self.alpha))

    def build(self, x: Value, name: str) -> Value:
        below = sub(exp(mul(clip(x, None, 0.0), 1 / self.alpha)), 1.0)
        return where(x > 0, x, mul(below, self.alpha), name=name)


@dataclass(frozen=True)
class ThresholdedRelu(Activation):
    """x above alpha, else 0 (Konda et al. 2014, arXiv:1402.3337)."""

    name = "thresholded_relu"
    alpha: float = 1.0

    def of(self, x: Array) -> Array:
        return np.where(x > self.alpha, x, 0)

    def build(self, x: Value, name: str) -> Value:
        return where(x > self.alpha, x, 0.0, name=name)


@dataclass(frozen=True)
class Shrink(Activation):
    """x - bias above threshold, x + bias below -threshold, else 0."""

    name = "shrink"
    threshold: float = 0.5
    bias: float = 0.0

    def of(self, x: Array) -> Array:
        small = np.abs(x) <= self.threshold
        return np.where(small, 0, x - np.sign(x) * self.bias)

    def build(self, x: Value, name: str) -> Value:
        below = where(x < -self.threshold, add(x, self.bias), 0.0)
        return where(x > self.threshold, sub(x, self.bias), below, name=name)


def celu(x: Value, alpha: float = 1.0, *, name: str | None = None) -> Value:
    """x where it is above 0, else alpha * (e**(x / alpha) - 1); alpha is above 0."""
    return apply(Celu(_above_zero("celu", "alpha", alpha)), x, name=name)


def thresholded_relu(x: Value, alpha: float = 1.0, *, name: str | None = None) -> Value:
    """x where it is above alpha, else 0."""
    return apply(ThresholdedRelu(float(alpha)), x, name=name)


def shrink(
    x: Value, threshold: float = 0.5, bias: float = 0.0, *, name: str | None = None
) -> Value:
    """x moved by bias toward 0, and 0 from -threshold to threshold: with bias 0 hard, with bias
    equal to threshold soft shrinkage."""
    return apply(Shrink(_above_zero("shrink", "threshold", threshold), float(bias)), x, name=name)


def relu6(x: Value, *, name: str | None = None) -> Value:
    """x held between 0 and 6."""
    return clip(x, 0.0, 6.0, name=name)


def hard_tanh(x: Value, *, name: str | None = None) -> Value:
    """x held between -1 and 1."""
    return clip(x, -1.0, 1.0, name=name)


def _above_zero(function: str, role: str, given: float) -> float:
    if not given > 0:
        raise GraphError(f"{function}: {role} is {given!r}, it must be above 0", loc=caller_loc())
    return float(given)
