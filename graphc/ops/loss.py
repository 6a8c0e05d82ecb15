"""Losses: one number a row, and what becomes of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.build import Builder, Value, apply
from graphc.errors import GraphError
from graphc.loc import caller_loc
from graphc.op import Array, Layer
from graphc.ops.elementwise import div, mul, power, sub
from graphc.ops.loss_rows import SoftmaxRows, SvmRows, check_scores
from graphc.ops.reduce import mean, sum_
from graphc.tensor_type import TensorType

REDUCTIONS = ("mean", "sum", "none")


class RowLoss(Layer):
    """A loss with one number a row, weighted and reduced.

    mean: the mean over the rows, weighted by `weight` (sum(weight * rows) / sum(weight));
    sum: sum(weight * rows); none: weight * rows.
    """

    roles = ("scores", "labels", "weight")
    reduction: str

    def rows(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        """The loss of each row."""
        raise NotImplementedError

    def reference_rows(self, ins: Sequence[Array]) -> Array:
        """The loss of each row, in plain NumPy."""
        raise NotImplementedError

    def infer_rows(self, ins: Sequence[TensorType]) -> TensorType:
        """The type of the rows; ValueError in the loss's words."""
        raise NotImplementedError

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        rows = self.infer_rows(ins[:2])
        if len(ins) == 3 and ins[2] != rows:
            raise ValueError(f"weight is {ins[2]}, there must be one for each row: {rows}")
        return rows if self.reduction == "none" else rows.with_shape(())

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        rows = self.reference_rows(ins[:2])
        weight = ins[2] if len(ins) == 3 else np.ones_like(rows)
        if self.reduction == "none":
            return np.asarray(rows * weight)
        total = (rows * weight).sum()
        return np.asarray(total / weight.sum() if self.reduction == "mean" else total)

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        plain = self.reduction == "none" and len(ins) == 2
        rows = self.rows(b, ins[:2], name if plain else f"{name}.rows")
        if plain:
            return rows
        if len(ins) == 2:
            return (mean if self.reduction == "mean" else sum_)(rows, name=name)
        weight = ins[2]
        if self.reduction == "none":
            return mul(rows, weight, name=name)
        weighted = mul(rows, weight, name=f"{name}.weighted")
        if self.reduction == "sum":
            return sum_(weighted, name=name)
        total = sum_(weighted, name=f"{name}.total")
        return div(total, sum_(weight, name=f"{name}.weight"), name=name)


@dataclass(frozen=True)
class SoftmaxLoss(RowLoss):
    """logsumexp(s) - s_y of each row: cross-entropy of softmax, stable for any finite s."""

    name = "softmax_loss"
    reduction: str = "mean"

    def infer_rows(self, ins: Sequence[TensorType]) -> TensorType:
        return check_scores(ins, self.name)

    def reference_rows(self, ins: Sequence[Array]) -> Array:
        return SoftmaxRows().reference(ins)

    def rows(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        return b.apply(SoftmaxRows(), *ins, name=name)


@dataclass(frozen=True)
class SvmLoss(RowLoss):
    """sum over j != y of max(0, s_j - s_y + 1) of each row; not divided by the classes."""

    name = "svm_loss"
    reduction: str = "mean"

    def infer_rows(self, ins: Sequence[TensorType]) -> TensorType:
        return check_scores(ins, self.name)

    def reference_rows(self, ins: Sequence[Array]) -> Array:
        return SvmRows().reference(ins)

    def rows(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        return b.apply(SvmRows(), *ins, name=name)


@dataclass(frozen=True)
class MseLoss(RowLoss):
    """The mean of (prediction - target)**2 over the features of each row."""

    name = "mse_loss"
    roles = ("prediction", "target", "weight")
    reduction: str = "mean"

    def infer_rows(self, ins: Sequence[TensorType]) -> TensorType:
        prediction, target = ins
        if prediction != target or not prediction.is_float or prediction.rank < 1:
            raise ValueError(
                f"prediction is {prediction}, target is {target}; they must be equal\n"
                "a silent broadcast would compare every row with every other"
            )
        return prediction.with_shape(prediction.shape[:1])

    def reference_rows(self, ins: Sequence[Array]) -> Array:
        square = (ins[0] - ins[1]) ** 2
        return np.asarray(square.mean(axis=tuple(range(1, square.ndim))))

    def rows(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        rank = ins[0].type.rank
        error = sub(ins[0], ins[1], name=f"{name}.error")
        if rank == 1:
            return power(error, 2, name=name)
        square = power(error, 2, name=f"{name}.square")
        return mean(square, tuple(range(1, rank)), name=name)


def softmax_loss(
    scores: Value,
    labels: Value,
    *,
    weight: Value | None = None,
    reduction: str = "mean",
    name: str | None = None,
) -> Value:
    """Cross-entropy of softmax: scores (N, C), labels (N,) whole numbers, weight (N,).

    `reduction` is "mean" (weighted by `weight`), "sum" or "none" (one loss a row).
    """
    return _loss(SoftmaxLoss, scores, labels, weight, reduction, name)


def svm_loss(
    scores: Value,
    labels: Value,
    *,
    weight: Value | None = None,
    reduction: str = "mean",
    name: str | None = None,
) -> Value:
    """Multiclass hinge loss with margin 1: scores (N, C), labels (N,), weight (N,)."""
    return _loss(SvmLoss, scores, labels, weight, reduction, name)


def mse_loss(
    prediction: Value,
    target: Value,
    *,
    weight: Value | None = None,
    reduction: str = "mean",
    name: str | None = None,
) -> Value:
    """Mean squared error: both (N, ...) of one shape; a row's loss is the mean of its squares."""
    return _loss(MseLoss, prediction, target, weight, reduction, name)


def _loss(
    kind: type[SoftmaxLoss] | type[SvmLoss] | type[MseLoss],
    a: Value,
    b: Value,
    weight: Value | None,
    reduction: str,
    name: str | None,
) -> Value:
    if reduction not in REDUCTIONS:
        raise GraphError(
            f"{kind.name}: reduction {reduction!r} is not one of mean, sum, none",
            loc=caller_loc(),
            hint="'none' gives one loss a row, to be weighted or masked",
        )
    operands = (a, b) if weight is None else (a, b, weight)
    return apply(kind(reduction), *operands, name=name)
