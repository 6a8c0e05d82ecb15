"""The negative log-likelihood of labels, with class weights and an ignored label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graphc.base.arguments import checked_whole
from graphc.ir.build import Builder, Value, as_value
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.ops.elementwise import add, mul, neg
from graphc.ops.losses.class_axis import Rows, by_class
from graphc.ops.losses.label_hit import LabelHit
from graphc.ops.losses.labelled_rows import check_scores
from graphc.ops.losses.row_loss import RowLoss, apply_loss
from graphc.ops.reduce import mean, sum_
from graphc.ops.select import not_equal, where
from graphc.ops.shape import cast
from graphc.ops.source import constant


@dataclass(frozen=True)
class NllLoss(RowLoss):
    """-l_y of each row of logarithms of probabilities, and 0 where the label is ignored.

    With smoothing, (1 - smoothing) * l_y + smoothing * mean(l) replaces l_y.  A row counts 1 in a
    mean, and 0 where its label is ignored.
    """

    name = "nll_loss"
    roles: ClassVar[tuple[str, ...]] = ("log_probs", "labels", "weight")
    reduction: str = "mean"
    label_smoothing: float = 0.0
    ignore: int | None = None

    def infer_rows(self, ins: Sequence[TensorType]) -> TensorType:
        return check_scores(ins[:2], self.name)

    def reference_rows(self, ins: Sequence[Array]) -> Array:
        logs, labels = ins
        hit = self._hit(logs.shape[1]).reference([labels])
        own = np.where(hit, logs, 0).sum(axis=1)
        if not self.label_smoothing:
            return np.asarray(-own)
        even = logs.mean(axis=1) * self._kept_of(labels)
        share = self.label_smoothing
        return np.asarray(-((1 - share) * own + share * even)).astype(logs.dtype, copy=False)

    def rows(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        logs, labels = ins
        own = sum_(where(self._hit_of(b, logs, labels, name), logs, 0.0), 1)
        if not self.label_smoothing:
            return neg(own, name=name)
        even = mean(logs, 1)
        if self.ignore is not None:
            even = mul(even, self._kept(labels, logs.dtype))
        share = self.label_smoothing
        return neg(add(mul(own, 1 - share), mul(even, share)), name=name)

    @property
    def counts_by(self) -> tuple[int, ...]:
        """The labels, if one of them is ignored."""
        return () if self.ignore is None else (1,)

    def counts(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        return self._kept(ins[1], ins[0].dtype, name)

    def reference_counts(self, ins: Sequence[Array]) -> Array:
        return self._kept_of(ins[0])

    def _kept(self, labels: Value, dtype: str, name: str | None = None) -> Value:
        assert self.ignore is not None
        return cast(not_equal(labels, self.ignore), dtype, name=name)

    def _kept_of(self, labels: Array) -> Array:
        return np.asarray(np.ones(labels.shape) if self.ignore is None else labels != self.ignore)

    def _hit(self, classes: Any) -> LabelHit:
        return LabelHit(classes, self.ignore)

    def _hit_of(self, b: Builder, logs: Value, labels: Value, name: str) -> Value:
        return b.apply(self._hit(logs.shape[1]), labels, name=f"{name}.hit")


class WeightedNllLoss(NllLoss):
    """NllLoss of l * class_weight; in a mean a row counts the weight of its class."""

    name = "weighted_nll_loss"
    roles: ClassVar[tuple[str, ...]] = ("log_probs", "labels", "class_weight", "weight")
    operands = 3

    def infer_rows(self, ins: Sequence[TensorType]) -> TensorType:
        logs, class_weight = ins[0], ins[2]
        rows = super().infer_rows(ins)
        if class_weight != logs.with_shape(logs.shape[1:]):
            raise ValueError(
                f"class_weight is {class_weight}, log_probs are {logs}\n"
                "there must be one weight for each class"
            )
        return rows

    def reference_rows(self, ins: Sequence[Array]) -> Array:
        logs, labels, class_weight = ins
        return super().reference_rows([logs * class_weight, labels])

    def rows(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        logs, labels, class_weight = ins
        return super().rows(b, [mul(logs, class_weight, name=f"{name}.scaled"), labels], name)

    @property
    def counts_by(self) -> tuple[int, ...]:
        """The labels and the weights of classes."""
        return 1, 2

    def counts(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        logs, labels, class_weight = ins
        return sum_(where(self._hit_of(b, logs, labels, name), class_weight, 0.0), 1, name=name)

    def reference_counts(self, ins: Sequence[Array]) -> Array:
        labels, class_weight = ins
        hit = self._hit(len(class_weight)).reference([labels])
        return np.asarray(np.where(hit, class_weight, 0).sum(axis=1))


def nll_loss(
    log_probs: Value,
    labels: Value,
    *,
    weight: Value | None = None,
    reduction: str = "mean",
    class_weight: Any = None,
    ignore: int | None = None,
    name: str | None = None,
) -> Value:
    """Return -log_probs at the label: log_probs (N, C) or (N, C, d1, ...).

    Labels are (N,) or (N, d1, ...).  `class_weight` has a number for each class: a value (C,), or
    numbers.  Labels equal to `ignore`, which need not be a class, count nothing.  "mean" divides by
    the total count: the sum of weight * class_weight[label] over the labels that are not ignored.
    """
    b = as_value("nll_loss", log_probs).builder
    node = b.free_name("nll_loss", name)
    with b.all_or_nothing():
        return labelled(log_probs, labels, weight, reduction, 0.0, class_weight, ignore, node)


def labelled(
    logs: Value,
    labels: Value,
    weight: Value | None,
    reduction: str,
    label_smoothing: float,
    class_weight: Any,
    ignore: int | None,
    node: str,
) -> Value:
    """Return the loss of logarithms of probabilities; its last node is named `node`."""
    as_value("nll_loss", labels)
    kind = NllLoss if class_weight is None else WeightedNllLoss
    label = None if ignore is None else checked_whole(f"{node}: ignore", ignore, None)
    loss = kind(reduction, label_smoothing, label)
    more = () if class_weight is None else (class_weights(logs, class_weight, node),)

    def apply_to(rows: Rows, name: str) -> Value:
        return apply_loss(loss, rows.scores, rows.labels, *more, weight=rows.weight, name=name)

    return by_class(loss, logs, labels, weight, node, apply_to)


def class_weights(logs: Value, given: Any, node: str) -> Value:
    """Return weights of classes as a value; numbers become a constant."""
    if isinstance(given, Value):
        return given
    return constant(logs.builder, np.asarray(given, float), logs.dtype, f"{node}.class_weight")
