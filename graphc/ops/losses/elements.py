"""Losses of single numbers against their targets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.base.arguments import checked_number
from graphc.base.errors import GraphError
from graphc.ir.build import Value, apply
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.ops.arithmetic import power
from graphc.ops.elementwise import Power, add, mul, neg, sub
from graphc.ops.functions import abs_, exp, softplus
from graphc.ops.losses.base import apply_loss, loss_function
from graphc.ops.losses.element_loss import ElementLoss, of_errors
from graphc.ops.select import clip, relu
from graphc.ops.source import constant

__all__ = [
    "hinge_loss",
    "huber_loss",
    "log_cosh_loss",
    "mae_loss",
    "mse_loss",
    "poisson_loss",
    "sigmoid_loss",
]


class MseLoss(ElementLoss):
    """The mean squared error (prediction - target)**2 over the elements of each row."""

    def reference_each(self, prediction: Array, target: Array) -> Array:
        return np.asarray((prediction - target) ** 2)

    def each(self, prediction: Value, target: Value, node: str, name: str) -> Value:
        return power(sub(prediction, target, name=f"{node}.error"), 2, name=name)


class MaeLoss(ElementLoss):
    """The mean absolute error |prediction - target| over the elements of each row.

    The gradient is 0 where the two are equal.
    """

    def reference_each(self, prediction: Array, target: Array) -> Array:
        return np.asarray(np.abs(prediction - target))

    def each(self, prediction: Value, target: Value, node: str, name: str) -> Value:
        return abs_(sub(prediction, target, name=f"{node}.error"), name=name)


@dataclass(frozen=True)
class HuberLoss(ElementLoss):
    """e**2 / 2 where |e| <= delta, else delta * (|e| - delta / 2) (Huber 1964)."""

    delta: float = 1.0

    def reference_each(self, prediction: Array, target: Array) -> Array:
        size = np.abs(prediction - target)
        far = self.delta * (size - self.delta / 2)
        return np.asarray(np.where(size <= self.delta, size**2 / 2, far)).astype(size.dtype)

    def each(self, prediction: Value, target: Value, node: str, name: str) -> Value:
        error = sub(prediction, target, name=f"{node}.error")
        # near is e up to delta and +-delta beyond, so one formula serves both cases.
        near = clip(error, -self.delta, self.delta, name=f"{node}.near")
        return mul(near, sub(error, mul(near, 0.5)), name=name)


class LogCoshLoss(ElementLoss):
    """The mean of log(cosh(prediction - target)), a smooth absolute error, over each row.

    It is computed as e + log(1 + exp(-2 e)) - log 2 for each error e, without overflow.
    """

    def reference_each(self, prediction: Array, target: Array) -> Array:
        size = np.abs(prediction - target)
        return np.asarray(size + np.log1p(np.exp(-2 * size)) - size.dtype.type(math.log(2.0)))

    def each(self, prediction: Value, target: Value, node: str, name: str) -> Value:
        error = sub(prediction, target, name=f"{node}.error")
        more = softplus(mul(error, -2.0), name=f"{node}.softplus")
        return add(error, sub(more, math.log(2.0)), name=name)


class PoissonLoss(ElementLoss):
    """exp(s) - t * s of each log-rate s and count t."""

    roles = ("log_rate", "target", "weight")

    def reference_each(self, prediction: Array, target: Array) -> Array:
        return np.asarray(np.exp(prediction) - target * prediction)

    def each(self, prediction: Value, target: Value, node: str, name: str) -> Value:
        rate = exp(prediction, name=f"{node}.rate")
        return sub(rate, mul(target, prediction), name=name)


@loss_function(
    "x",
    "t",
    prediction="Floats (N, ...); a row's loss is the mean over its elements.",
    target="The right numbers, of the same shape.",
    delta="The error, above 0, from which the loss is linear.",
)
def huber_loss(
    prediction: Value,
    target: Value,
    delta: float = 1.0,
    *,
    weight: Value | None = None,
    reduction: str = "mean",
    name: str | None = None,
) -> Value:
    """Return the Huber loss: half the squared error up to `delta`, linear beyond.

    P. J. Huber, "Robust estimation of a location parameter", 1964 (doi:10.1214/aoms/1177703732).
    PyTorch's smooth_l1_loss is this divided by `delta`, which it calls beta.
    """
    hint = "the loss is linear for errors above delta"
    loss = HuberLoss(reduction, checked_number("huber_loss: delta", delta, above=0, hint=hint))
    return apply_loss(loss, prediction, target, weight=weight, name=name)


@loss_function(
    "x",
    "t",
    log_rate="Floats (N, ...); a row's loss is the mean over its elements.",
    target="The counts, as floats of the same shape.",
)
def poisson_loss(
    log_rate: Value,
    target: Value,
    *,
    weight: Value | None = None,
    reduction: str = "mean",
    name: str | None = None,
) -> Value:
    """Return exp(log_rate) - target * log_rate, for targets that are counts.

    This is the negative log-likelihood of Poisson's distribution, less what only the target sets.
    """
    return apply_loss(PoissonLoss(reduction), log_rate, target, weight=weight, name=name)


@dataclass(frozen=True)
class SigmoidLoss(ElementLoss):
    """log(1 + e**s) - t * s of each score s and target t: the cross-entropy of sigmoid.

    With p = `pos_weight`, which multiplies the part for t = 1, it is
    (1 - t) * s + (1 + (p - 1) * t) * log(1 + e**-s).
    """

    roles = ("scores", "target", "weight")
    pos_weight: float | tuple[float, ...] = 1.0

    def infer_rows(self, ins: Sequence[TensorType]) -> TensorType:
        """Return (N,); raise ValueError unless `pos_weight` has a number for each label."""
        rows = super().infer_rows(ins)
        if isinstance(self.pos_weight, tuple) and ins[0].shape[1:] != (len(self.pos_weight),):
            raise ValueError(
                f"scores are {ins[0]}, pos_weight has {len(self.pos_weight)} numbers\n"
                "give one number, or one for each label of a row"
            )
        return rows

    def reference_each(self, prediction: Array, target: Array) -> Array:
        zero = prediction.dtype.type(0)
        if self.pos_weight == 1.0:
            return np.asarray(np.logaddexp(zero, prediction) - target * prediction)
        more = 1 + (np.asarray(self.pos_weight, prediction.dtype) - 1) * target
        return np.asarray((1 - target) * prediction + more * np.logaddexp(zero, -prediction))

    def each(self, prediction: Value, target: Value, node: str, name: str) -> Value:
        """Return softplus(s) - t * s, or with `pos_weight` the sum of two softplus terms."""
        if self.pos_weight == 1.0:
            above = softplus(prediction, name=f"{node}.softplus")
            return sub(above, mul(prediction, target), name=name)
        extra = np.asarray(self.pos_weight) - 1.0
        scale = constant(target.builder, extra, target.dtype, name=f"{node}.extra")
        more = add(mul(target, scale), 1.0, name=f"{node}.more")
        below = mul(more, softplus(neg(prediction), name=f"{node}.softplus"))
        return add(mul(sub(1.0, target), prediction), below, name=name)


@loss_function(
    "x",
    "t",
    scores="Floats (N, ...) before the sigmoid.",
    target="Floats from 0 to 1 of the same shape; a row's loss is the mean over its labels.",
    pos_weight="The weight of positive labels relative to negative ones, above 0: one number, or "
    "one for each of the labels (N, labels).",
)
def sigmoid_loss(
    scores: Value,
    target: Value,
    *,
    pos_weight: float | Sequence[float] = 1.0,
    weight: Value | None = None,
    reduction: str = "mean",
    name: str | None = None,
) -> Value:
    """Return the cross-entropy of sigmoid, for labels that do not exclude each other."""
    try:
        given = np.asarray(pos_weight, float)
    except (TypeError, ValueError):  # no numbers, or lists of several lengths
        given = np.zeros(())
    if given.ndim > 1 or not (given > 0).all() or not np.isfinite(given).all():
        raise GraphError(
            f"sigmoid_loss: pos_weight is {pos_weight!r}, it must be above 0",
            hint="to balance a label, divide the number of rows without it by the number with it",
        )
    chosen = float(given) if given.ndim == 0 else tuple(map(float, given))
    return apply_loss(SigmoidLoss(reduction, chosen), scores, target, weight=weight, name=name)


@dataclass(frozen=True)
class HingeLoss(ElementLoss):
    """max(0, 1 - t * s) of each score and target, or its square."""

    roles = ("scores", "target", "weight")
    squared: bool = False

    def reference_each(self, prediction: Array, target: Array) -> Array:
        missed = np.maximum(1 - target * prediction, 0)
        return np.asarray(missed**2 if self.squared else missed)

    def each(self, prediction: Value, target: Value, node: str, name: str) -> Value:
        short = sub(1.0, mul(target, prediction), name=f"{node}.short")
        if not self.squared:
            return relu(short, name=name)
        return apply(Power(2.0), relu(short, name=f"{node}.missed"), name=name)


@loss_function(
    "x",
    "t",
    scores="Floats (N, ...); a row's loss is the mean over its scores.",
    target="-1 or 1 for each score, as floats.",
    squared="True to square the result.",
)
def hinge_loss(
    scores: Value,
    target: Value,
    *,
    squared: bool = False,
    weight: Value | None = None,
    reduction: str = "mean",
    name: str | None = None,
) -> Value:
    """Return the hinge loss max(0, 1 - target * score) of two classes, or its square."""
    return apply_loss(HingeLoss(reduction, squared), scores, target, weight=weight, name=name)


mse_loss = of_errors(MseLoss)
mae_loss = of_errors(MaeLoss)
log_cosh_loss = of_errors(LogCoshLoss)
