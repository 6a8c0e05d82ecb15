"""Cross-entropy of softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.build import Builder, Value, as_value
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.ops.elementwise import add, mul, sub
from graphc.ops.functions import log_softmax
from graphc.ops.index import pick
from graphc.ops.losses.class_axis import Rows, by_class
from graphc.ops.losses.labelled_rows import SoftmaxRows, check_scores
from graphc.ops.losses.nll import class_weights, labelled
from graphc.ops.losses.row_loss import RowLoss, apply_loss
from graphc.ops.losses.soft import SoftNllLoss
from graphc.ops.reduce import mean


@dataclass(frozen=True)
class SoftmaxLoss(RowLoss):
    """logsumexp(s) - s_y of each row: cross-entropy of softmax, stable for any finite s.

    With smoothing, (1 - smoothing) * s_y + smoothing * mean(s) replaces s_y.
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


def softmax_loss(
    scores: Value,
    labels: Value,
    *,
    weight: Value | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    class_weight: Any = None,
    ignore: int | None = None,
    name: str | None = None,
) -> Value:
    """Return the cross-entropy of softmax of scores (N, C) or (N, C, d1, ...).

    Labels are class numbers (N,) or (N, d1, ...), or probabilities of the scores' shape; `weight`
    has one number a label.  `reduction` is "mean" (weighted by `weight`), "sum" or "none" (one loss
    a label).  With `label_smoothing` that share of each row's target is spread evenly over all
    classes (Szegedy et al. 2016, arXiv:1512.00567).  `class_weight` and `ignore` are those of
    `nll_loss`; this function is log_softmax and nll_loss in one.  Raise GraphError for a share that
    is not in 0..1.
    """
    b = as_value("softmax_loss", scores).builder
    as_value("softmax_loss", labels)
    if not 0 <= label_smoothing <= 1:
        raise GraphError(
            f"softmax_loss: label_smoothing is {label_smoothing!r}, it must be from 0 to 1",
            loc=caller_loc(),
            hint="0.1 leaves 90 % of the target to the label",
        )
    share, loss = float(label_smoothing), SoftmaxLoss(reduction, float(label_smoothing))
    soft = labels.type.is_float and labels.shape == scores.shape
    if soft and ignore is not None:
        message = "ignore is a label, the labels are probabilities\ngive such a row the weight 0"
        raise b.error(loss, message, (scores, labels))
    if scores.type.rank <= 2 and class_weight is None and ignore is None and not soft:
        return apply_loss(loss, scores, labels, weight=weight, name=name)
    node = b.free_name("softmax_loss", name)

    def apply_to(rows: Rows, last: str) -> Value:
        if not soft and class_weight is None and ignore is None:
            return apply_loss(loss, rows.scores, rows.labels, weight=rows.weight, name=last)
        rows = rows._replace(scores=log_softmax(rows.scores, name=f"{last}.log"))
        if soft:
            return _soft(rows, reduction, share, class_weight, last)
        return labelled(*rows, reduction, share, class_weight, ignore, last)

    with b.all_or_nothing():
        return by_class(loss, scores, labels, weight, node, apply_to)


def _soft(rows: Rows, reduction: str, share: float, class_weight: Any, node: str) -> Value:
    logs, target, weight = rows
    if class_weight is not None:
        logs = mul(logs, class_weights(logs, class_weight, node), name=f"{node}.scaled")
    if share:
        classes = target.shape[1]
        assert isinstance(classes, int)
        target = add(mul(target, 1 - share), share / classes, name=f"{node}.smoothed")
    return apply_loss(SoftNllLoss(reduction), logs, target, weight=weight, name=node)
