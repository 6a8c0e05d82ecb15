"""Cross-entropy of sigmoid, for labels that do not exclude each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.build import Value
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.ops.elementwise import add, mul, neg, sub
from graphc.ops.losses.element_loss import ElementLoss
from graphc.ops.losses.row_loss import apply_loss
from graphc.ops.smooth import softplus
from graphc.ops.source import constant


@dataclass(frozen=True)
class SigmoidLoss(ElementLoss):
    """log(1 + e**s) - t * s of each score and target: cross-entropy of sigmoid, stable.

    The part for t = 1 counts `pos_weight` times: with p it is
    (1 - t) * s + (1 + (p - 1) * t) * log(1 + e**-s).
    """

    name = "sigmoid_loss"
    roles = ("scores", "target", "weight")
    reduction: str = "mean"
    pos_weight: float | tuple[float, ...] = 1.0

    def infer_rows(self, ins: Sequence[TensorType]) -> TensorType:
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
        if self.pos_weight == 1.0:
            above = softplus(prediction, name=f"{node}.softplus")
            return sub(above, mul(prediction, target), name=name)
        extra = np.asarray(self.pos_weight) - 1.0
        scale = constant(target.builder, extra, target.dtype, name=f"{node}.extra")
        more = add(mul(target, scale), 1.0, name=f"{node}.more")
        below = mul(more, softplus(neg(prediction), name=f"{node}.softplus"))
        return add(mul(sub(1.0, target), prediction), below, name=name)


def sigmoid_loss(
    scores: Value,
    target: Value,
    *,
    pos_weight: float | Sequence[float] = 1.0,
    weight: Value | None = None,
    reduction: str = "mean",
    name: str | None = None,
) -> Value:
    """Return the cross-entropy of sigmoid, for labels that do not exclude each other.

    Both are (N, ...).  Scores are taken before the sigmoid; targets are floats from 0 to 1.  A
    row's loss is the mean over its labels.  `pos_weight` is the weight of the part for a label,
    relative to the part against it: one number, or one for each of the labels (N, labels).  Raise
    GraphError unless it is above 0.
    """
    given = np.asarray(pos_weight, float)
    if given.ndim > 1 or not (given > 0).all() or not np.isfinite(given).all():
        raise GraphError(
            f"sigmoid_loss: pos_weight is {pos_weight!r}, it must be above 0",
            loc=caller_loc(),
            hint="the number of rows without a label by that of the rows with it balances both",
        )
    chosen = float(given) if given.ndim == 0 else tuple(map(float, given))
    return apply_loss(SigmoidLoss(reduction, chosen), scores, target, weight=weight, name=name)
