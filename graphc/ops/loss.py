"""Losses: one number a row, and what becomes of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.build import Builder, Value, apply
from graphc.errors import GraphError
from graphc.loc import caller_loc
from graphc.op import Array, Layer
from graphc.ops.elementwise import add, div, mul, sub
from graphc.ops.index import pick
from graphc.ops.loss_rows import SoftmaxRows, SvmRows, check_scores
from graphc.ops.reduce import mean, sum_
from graphc.tensor_type import TensorType

REDUCTIONS = ("mean", "sum", "none")


class RowLoss(Layer):
    """A loss with one number a row, weighted and reduced.

    mean: the mean over the rows, weighted by `weight` (sum(weight * rows) / sum(weight));
    sum: sum(weight * rows); none: weight * rows.
    """

    roles: ClassVar[tuple[str, ...]] = ("scores", "labels", "weight")
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
    """logsumexp(s) - s_y of each row: cross-entropy of softmax, stable for any finite s.

    With smoothing, s_y gives way to (1 - smoothing) * s_y + smoothing * mean(s).
    """

    name = "softmax_loss"
    reduction: str = "mean"
    label_smoothing: float = 0.0

    def infer_rows(self, ins: Sequence[TensorType]) -> TensorType:
        return check_scores(ins, self.name)

    def reference_rows(self, ins: Sequence[Array]) -> Array:
        rows, (scores, labels) = SoftmaxRows().reference(ins), ins
        own = scores[np.arange(len(labels)), labels]
        return np.asarray(rows + self.label_smoothing * (own - scores.mean(axis=1)))

    def rows(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        if self.label_smoothing == 0:
            return b.apply(SoftmaxRows(), *ins, name=name)
        scores, labels = ins
        sharp = b.apply(SoftmaxRows(), *ins, name=f"{name}.sharp")
        more = sub(pick(scores, labels), mean(scores, 1))
        return add(sharp, mul(more, self.label_smoothing), name=name)


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


def softmax_loss(
    scores: Value,
    labels: Value,
    *,
    weight: Value | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    name: str | None = None,
) -> Value:
    """Cross-entropy of softmax: scores (N, C), labels (N,) whole numbers, weight (N,).

    `reduction` is "mean" (weighted by `weight`), "sum" or "none" (one loss a row).  With
    `label_smoothing` that share of each row's target is spread evenly over all classes (Szegedy
    et al. 2016, arXiv:1512.00567).  GraphError for a share that is not in 0..1.
    """
    if not 0 <= label_smoothing <= 1:
        raise GraphError(
            f"softmax_loss: label_smoothing is {label_smoothing!r}, it must be from 0 to 1",
            loc=caller_loc(),
            hint="0.1 leaves 90 % of the target to the label",
        )
    loss = SoftmaxLoss(reduction, float(label_smoothing))
    return apply_loss(loss, scores, labels, weight, name)


def svm_loss(
    scores: Value,
    labels: Value,
    *,
    weight: Value | None = None,
    reduction: str = "mean",
    name: str | None = None,
) -> Value:
    """Multiclass hinge loss with margin 1: scores (N, C), labels (N,), weight (N,)."""
    return apply_loss(SvmLoss(reduction), scores, labels, weight, name)


def apply_loss(loss: RowLoss, a: Value, b: Value, weight: Value | None, name: str | None) -> Value:
    """Apply a loss to its operands.  Raises GraphError for a reduction that does not exist."""
    if loss.reduction not in REDUCTIONS:
        raise GraphError(
            f"{loss.name}: reduction {loss.reduction!r} is not one of mean, sum, none",
            loc=caller_loc(),
            hint="'none' gives one loss a row, to be weighted or masked",
        )
    operands = (a, b) if weight is None else (a, b, weight)
    return apply(loss, *operands, name=name)
