"""Losses that compare each element of a prediction with its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.build import Builder, Value
from graphc.errors import GraphError
from graphc.loc import caller_loc
from graphc.op import Array
from graphc.ops.elementwise import mul, power, sub
from graphc.ops.functions import abs_
from graphc.ops.loss import RowLoss, apply_loss
from graphc.ops.reduce import mean
from graphc.ops.select import clip
from graphc.ops.smooth import softplus
from graphc.tensor_type import TensorType


class ElementLoss(RowLoss):
    """A loss of each element; a row's is the mean over its features."""

    roles = ("prediction", "target", "weight")

    def each(self, prediction: Value, target: Value, node: str, name: str) -> Value:
        """The loss of each element, named `name`; what leads to it is named `node.part`."""
        raise NotImplementedError

    def reference_each(self, prediction: Array, target: Array) -> Array:
        """The same in plain NumPy."""
        raise NotImplementedError

    def infer_rows(self, ins: Sequence[TensorType]) -> TensorType:
        a, b = ins
        if a != b or not a.is_float or a.rank < 1:
            first, second, _ = self.roles
            raise ValueError(
                f"{first} is {a}, {second} is {b}; they must be equal\n"
                "a silent broadcast would compare every row with every other"
            )
        return a.with_shape(a.shape[:1])

    def reference_rows(self, ins: Sequence[Array]) -> Array:
        each = self.reference_each(*ins)
        return np.asarray(each.mean(axis=tuple(range(1, each.ndim))))

    def rows(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        prediction, target = ins
        if prediction.type.rank == 1:
            return self.each(prediction, target, name, name)
        each = self.each(prediction, target, name, f"{name}.each")
        return mean(each, tuple(range(1, prediction.type.rank)), name=name)


@dataclass(frozen=True)
class MseLoss(ElementLoss):
    """The mean of (prediction - target)**2 over the features of each row."""

    name = "mse_loss"
    reduction: str = "mean"

    def reference_each(self, prediction: Array, target: Array) -> Array:
        return np.asarray((prediction - target) ** 2)

    def each(self, prediction: Value, target: Value, node: str, name: str) -> Value:
        return power(sub(prediction, target, name=f"{node}.error"), 2, name=name)


@dataclass(frozen=True)
class MaeLoss(ElementLoss):
    """The mean of |prediction - target| over the features of each row."""

    name = "mae_loss"
    reduction: str = "mean"

    def reference_each(self, prediction: Array, target: Array) -> Array:
        return np.asarray(np.abs(prediction - target))

    def each(self, prediction: Value, target: Value, node: str, name: str) -> Value:
        return abs_(sub(prediction, target, name=f"{node}.error"), name=name)


@dataclass(frozen=True)
class HuberLoss(ElementLoss):
    """e**2 / 2 where |e| <= delta, else delta * (|e| - delta / 2) (Huber 1964)."""

    name = "huber_loss"
    reduction: str = "mean"
    delta: float = 1.0

    def reference_each(self, prediction: Array, target: Array) -> Array:
        size = np.abs(prediction - target)
        far = self.delta * (size - self.delta / 2)
        return np.asarray(np.where(size <= self.delta, size**2 / 2, far)).astype(size.dtype)

    def each(self, prediction: Value, target: Value, node: str, name: str) -> Value:
        error = sub(prediction, target, name=f"{node}.error")
        near = clip(error, -self.delta, self.delta, name=f"{node}.near")
        return mul(near, sub(error, mul(near, 0.5)), name=name)


@dataclass(frozen=True)
class SigmoidLoss(ElementLoss):
    """log(1 + e**s) - t * s of each score and target: cross-entropy of sigmoid, stable."""

    name = "sigmoid_loss"
    roles = ("scores", "target", "weight")
    reduction: str = "mean"

    def reference_each(self, prediction: Array, target: Array) -> Array:
        zero = prediction.dtype.type(0)
        return np.asarray(np.logaddexp(zero, prediction) - target * prediction)

    def each(self, prediction: Value, target: Value, node: str, name: str) -> Value:
        above = softplus(prediction, name=f"{node}.softplus")
        return sub(above, mul(prediction, target), name=name)


def mse_loss(
    prediction: Value,
    target: Value,
    *,
    weight: Value | None = None,
    reduction: str = "mean",
    name: str | None = None,
) -> Value:
    """Mean squared error: both (N, ...) of one shape; a row's loss is the mean of its squares."""
    return apply_loss(MseLoss(reduction), prediction, target, weight, name)


def mae_loss(
    prediction: Value,
    target: Value,
    *,
    weight: Value | None = None,
    reduction: str = "mean",
    name: str | None = None,
) -> Value:
    """Mean absolute error: both (N, ...) of one shape; the gradient is 0 where they are equal."""
    return apply_loss(MaeLoss(reduction), prediction, target, weight, name)


def huber_loss(
    prediction: Value,
    target: Value,
    delta: float = 1.0,
    *,
    weight: Value | None = None,
    reduction: str = "mean",
    name: str | None = None,
) -> Value:
    """Squared error up to `delta`, absolute beyond: both (N, ...) of one shape.

    GraphError for a delta that is not above 0.
    """
    if not delta > 0:
        raise GraphError(
            f"huber_loss: delta is {delta!r}, it must be above 0",
            loc=caller_loc(),
            hint="it is the error from which the loss grows no faster than the error",
        )
    return apply_loss(HuberLoss(reduction, float(delta)), prediction, target, weight, name)


def sigmoid_loss(
    scores: Value,
    target: Value,
    *,
    weight: Value | None = None,
    reduction: str = "mean",
    name: str | None = None,
) -> Value:
    """Cross-entropy of sigmoid, for labels that do not exclude each other: both (N, ...).

    Scores are taken before the sigmoid; targets are floats from 0 to 1.  A row's loss is the mean
    over its labels.
    """
    return apply_loss(SigmoidLoss(reduction), scores, target, weight, name)
