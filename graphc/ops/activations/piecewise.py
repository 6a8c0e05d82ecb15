"""Activations made of straight pieces, or of products of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.ir.build import Builder, Value, apply, as_value
from graphc.ir.init import Constant
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.ops.activations.activation import Activation, above_zero
from graphc.ops.elementwise import add, mul, sub
from graphc.ops.select import clip, where
from graphc.ops.shape import reshape
from graphc.ops.source import Parameter


@dataclass(frozen=True)
class LeakyRelu(Activation):
    """x above 0, else slope * x."""

    name = "leaky_relu"
    slope: float = 0.01

    def of(self, x: Array) -> Array:
        return np.where(x > 0, x, self.slope * x)

    def build(self, x: Value, name: str) -> Value:
        return where(x > 0, x, mul(x, self.slope), name=name)


class PRelu(Activation):
    """x above 0, else slope * x with a trained slope for each feature."""

    name = "prelu"
    roles = ("x", "slope")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        x, slope = ins
        if x.rank < 2 or slope != TensorType((x.shape[1],), x.dtype):
            raise ValueError(f"x is {x}, slope is {slope}: there is one for each of x's features")
        return super().infer(ins)

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        x, slope = ins
        return np.where(x > 0, x, slope.reshape((-1,) + (1,) * (x.ndim - 2)) * x)

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        x, slope = ins
        if x.type.rank > 2:
            slope = reshape(slope, (slope.shape[0],) + (1,) * (x.type.rank - 2))
        return where(x > 0, x, mul(x, slope), name=name)


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


class HardSigmoid(Activation):
    """x / 6 + 1 / 2, clipped to the range 0 to 1."""

    name = "hard_sigmoid"

    def of(self, x: Array) -> Array:
        return np.clip(x / 6 + 0.5, 0, 1)

    def build(self, x: Value, name: str) -> Value:
        return clip(add(mul(x, 1 / 6), 0.5), 0.0, 1.0, name=name)


class HardSwish(Activation):
    """x * hard_sigmoid(x) (Howard et al. 2019, arXiv:1905.02244)."""

    name = "hard_swish"

    def of(self, x: Array) -> Array:
        return np.asarray(x * HardSigmoid().of(x))

    def build(self, x: Value, name: str) -> Value:
        return mul(x, HardSigmoid().build(x, f"{name}.gate"), name=name)


def leaky_relu(x: Value, slope: float = 0.01, *, name: str | None = None) -> Value:
    """Return x where it is above 0, else slope * x."""
    return apply(LeakyRelu(float(slope)), x, name=name)


def prelu(x: Value, *, start: float = 0.25, name: str | None = None) -> Value:
    """Return x where it is above 0, else slope * x: x (N, features, ...).

    The slopes `<node>.slope` (features,) are trained from `start`.  Raise GraphError if x does not
    have features.
    """
    b = as_value("prelu", x).builder
    features = x.shape[1] if x.type.rank > 1 else None
    if not isinstance(features, int):
        message = f"x is {x.type}, prelu takes floats of shape (N, features, ...)"
        raise b.error(PRelu(), message, (x,))
    node = b.free_name("prelu", name)
    with b.all_or_nothing():
        slope = b.apply(Parameter((features,), x.dtype, Constant(start)), name=f"{node}.slope")
        return b.apply(PRelu(), x, slope, name=node)


def thresholded_relu(x: Value, alpha: float = 1.0, *, name: str | None = None) -> Value:
    """Return x where it is above alpha, else 0."""
    return apply(ThresholdedRelu(float(alpha)), x, name=name)


def shrink(
    x: Value, threshold: float = 0.5, bias: float = 0.0, *, name: str | None = None
) -> Value:
    """Move x by bias toward 0, and return 0 from -threshold to threshold.

    With bias 0 this is hard shrinkage, with bias equal to threshold soft shrinkage.
    """
    return apply(Shrink(above_zero("shrink", "threshold", threshold), float(bias)), x, name=name)


def relu6(x: Value, *, name: str | None = None) -> Value:
    """Clip x to the range 0 to 6."""
    return clip(x, 0.0, 6.0, name=name)


def hard_tanh(x: Value, *, name: str | None = None) -> Value:
    """Clip x to the range -1 to 1."""
    return clip(x, -1.0, 1.0, name=name)


def hard_sigmoid(x: Value, *, name: str | None = None) -> Value:
    """Return x / 6 + 1 / 2, clipped to the range 0 to 1."""
    return apply(HardSigmoid(), x, name=name)


def hard_swish(x: Value, *, name: str | None = None) -> Value:
    """Return x * hard_sigmoid(x)."""
    return apply(HardSwish(), x, name=name)
