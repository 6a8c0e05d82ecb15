"""The divergence of one distribution from another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.build import Builder, Value
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.ops.elementwise import mul, sub
from graphc.ops.functions import log
from graphc.ops.losses.row_loss import RowLoss, apply_loss
from graphc.ops.reduce import sum_
from graphc.ops.select import greater, where


@dataclass(frozen=True)
class KlLoss(RowLoss):
    """sum(t * (log t - l)) of each row of logarithms l and probabilities t; 0 where t is 0.

    S. Kullback, R. Leibler, "On information and sufficiency", 1951.
    """

    name = "kl_loss"
    roles: ClassVar[tuple[str, ...]] = ("log_probs", "target", "weight")
    reduction: str = "mean"

    def infer_rows(self, ins: Sequence[TensorType]) -> TensorType:
        logs, target = ins
        if logs != target or not logs.is_float or logs.rank < 2:
            raise ValueError(
                f"log_probs are {logs}, target is {target}; both have one shape (N, ...)\n"
                "targets are probabilities, such as gc.softmax(scores)"
            )
        return logs.with_shape(logs.shape[:1])

    def reference_rows(self, ins: Sequence[Array]) -> Array:
        logs, target = ins
        each = target * (np.log(np.where(target > 0, target, 1)) - logs)
        return np.asarray(each.sum(axis=tuple(range(1, each.ndim))))

    def rows(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        logs, target = ins
        known = log(where(greater(target, 0.0), target, 1.0), name=f"{name}.log_target")
        each = mul(target, sub(known, logs), name=f"{name}.each")
        return sum_(each, tuple(range(1, logs.type.rank)), name=name)


def kl_loss(
    log_probs: Value,
    target: Value,
    *,
    weight: Value | None = None,
    reduction: str = "mean",
    name: str | None = None,
) -> Value:
    """Return the Kullback-Leibler divergence of the target from a prediction, both (N, ...).

    The target has probabilities, the prediction their logarithms.  A row's loss is the sum over its
    features; "mean" is the mean over the rows, which PyTorch calls batchmean.
    """
    return apply_loss(KlLoss(reduction), log_probs, target, weight=weight, name=name)
