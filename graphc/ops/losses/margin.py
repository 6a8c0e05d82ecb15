"""Losses of margins: the multiclass hinge loss, and the hinge loss of labels -1 and 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.ir.build import Builder, Value
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.ops.elementwise import mul, power, sub
from graphc.ops.losses.element_loss import ElementLoss
from graphc.ops.losses.labelled_rows import SvmRows, check_scores
from graphc.ops.losses.row_loss import RowLoss, apply_loss
from graphc.ops.select import relu


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
class HingeLoss(ElementLoss):
    """max(0, 1 - t * s) of each score and target, or its square."""

    name = "hinge_loss"
    roles = ("scores", "target", "weight")
    reduction: str = "mean"
    squared: bool = False

    def reference_each(self, prediction: Array, target: Array) -> Array:
        missed = np.maximum(1 - target * prediction, 0)
        return np.asarray(missed**2 if self.squared else missed)

    def each(self, prediction: Value, target: Value, node: str, name: str) -> Value:
        short = sub(1.0, mul(target, prediction), name=f"{node}.short")
        if not self.squared:
            return relu(short, name=name)
        return power(relu(short, name=f"{node}.missed"), 2, name=name)


def svm_loss(
    scores: Value,
    labels: Value,
    *,
    weight: Value | None = None,
    reduction: str = "mean",
    name: str | None = None,
) -> Value:
    """Return the multiclass hinge loss with margin 1: scores (N, C), labels and weight (N,)."""
    return apply_loss(SvmLoss(reduction), scores, labels, weight=weight, name=name)


def hinge_loss(
    scores: Value,
    target: Value,
    *,
    squared: bool = False,
    weight: Value | None = None,
    reduction: str = "mean",
    name: str | None = None,
) -> Value:
    """Return max(0, 1 - target * score), or with `squared` its square.

    Both are (N, ...), targets -1 or 1.  A row's loss is the mean over its scores.
    """
    return apply_loss(HingeLoss(reduction, squared), scores, target, weight=weight, name=name)
