"""Losses of class scores against labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from graphc.base.arguments import checked_number, checked_whole
from graphc.ir.build import Builder, Value, as_value, misfit
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.ops.elementwise import add, mul, neg, sub
from graphc.ops.functions import log_softmax
from graphc.ops.index import pick
from graphc.ops.losses.base import RowLoss, Rows, apply_loss, by_class, loss_function
from graphc.ops.losses.labels import LabelHit, SoftmaxRows, SvmRows
from graphc.ops.reduce import mean
from graphc.ops.select import not_equal, where
from graphc.ops.shape import cast
from graphc.ops.source import constant
from graphc.ops.sums import sum_

__all__ = ["nll_loss", "softmax_loss", "svm_loss"]


_BY_CLASS = {
    "class_weight": "A number for each class, which the losses of its labels are multiplied with.",
    "ignore": "The label of rows to leave out; it need not be a class.",
}
"""The descriptions of the options that losses of labels share."""


@dataclass(frozen=True)
class NllLoss(RowLoss):
    """-l_y of each row of log-probabilities l; 0 where the label y is ignored.

    With smoothing, (1 - smoothing) * l_y + smoothing * mean(l) replaces l_y.  A row counts 1 in a
    mean, and 0 where its label is ignored.
    """

    roles: ClassVar[tuple[str, ...]] = ("log_probs", "labels", "weight")
    label_smoothing: float = 0.0
    ignore: int | None = None

    def reference_rows(self, ins: Sequence[Array]) -> Array:
        """Compute -l_y, mixed with -mean(l) by the smoothing; 0 where the label is ignored."""
        logs, labels = ins
        hit = self._hit(logs.shape[1]).reference([labels])
        own = np.where(hit, logs, 0).sum(axis=1)
        if not self.label_smoothing:
            return np.asarray(-own)
        even = logs.mean(axis=1) * self._kept_of(labels)
        share = self.label_smoothing
        return np.asarray(-((1 - share) * own + share * even)).astype(logs.dtype, copy=False)

    def rows(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        """Return -l_y, picked by a mask; with smoothing the row's mean is mixed in."""
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
        """The labels, if some are ignored."""
        return () if self.ignore is None else (1,)

    def counts(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        return self._kept(ins[1], ins[0].dtype, name)

    def reference_counts(self, ins: Sequence[Array]) -> Array:
        return self._kept_of(ins[0])

    def _kept(self, labels: Value, dtype: str, name: str | None = None) -> Value:
        """Return 1 for rows whose label counts, 0 for those whose label is ignored."""
        assert self.ignore is not None
        return cast(not_equal(labels, self.ignore), dtype, name=name)

    def _kept_of(self, labels: Array) -> Array:
        """Compute `_kept` in plain NumPy."""
        return np.asarray(np.ones(labels.shape) if self.ignore is None else labels != self.ignore)

    def _hit(self, classes: Any) -> LabelHit:
        """Return the op that marks each row's label."""
        return LabelHit(classes, self.ignore)

    def _hit_of(self, b: Builder, logs: Value, labels: Value, name: str) -> Value:
        """Return a mask of the rows and classes, true at each row's label."""
        return b.apply(self._hit(logs.shape[1]), labels, name=f"{name}.hit")


class WeightedNllLoss(NllLoss):
    """NllLoss of l * class_weight; a row's count in a mean is the weight of its class."""

    roles: ClassVar[tuple[str, ...]] = ("log_probs", "labels", "class_weight", "weight")

    def infer_rows(self, ins: Sequence[TensorType]) -> TensorType:
        """Return (N,); raise ValueError unless class_weight has a number for each class."""
        logs, class_weight = ins[0], ins[2]
        rows = super().infer_rows(ins[:2])
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
        return 1, 2

    def counts(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        logs, labels, class_weight = ins
        return sum_(where(self._hit_of(b, logs, labels, name), class_weight, 0.0), 1, name=name)

    def reference_counts(self, ins: Sequence[Array]) -> Array:
        labels, class_weight = ins
        hit = self._hit(len(class_weight)).reference([labels])
        return np.asarray(np.where(hit, class_weight, 0).sum(axis=1))


class SoftNllLoss(RowLoss):
    """-sum(t * l) of each row of log-probabilities l and targets t."""

    roles: ClassVar[tuple[str, ...]] = ("log_probs", "target", "weight")

    def infer_rows(self, ins: Sequence[TensorType]) -> TensorType:
        """Return (N,); raise ValueError unless both are floats of one shape (N, classes)."""
        logs, target = ins
        if logs != target or not logs.is_float or logs.rank != 2:
            raise ValueError(
                f"log_probs are {logs}, target is {target}; both are (N, classes)\n"
                "labels that are class numbers are declared with dtype='int64'"
            )
        return logs.with_shape(logs.shape[:1])

    def reference_rows(self, ins: Sequence[Array]) -> Array:
        logs, target = ins
        return np.asarray(-(target * logs).sum(axis=1))

    def rows(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        logs, target = ins
        return neg(sum_(mul(target, logs, name=f"{name}.each"), 1), name=name)


@loss_function(
    "x",
    "y",
    log_probs="Logarithms of probabilities: floats (N, C) or (N, C, d1, ...).",
    labels="Class numbers (N,) or (N, d1, ...).",
    **_BY_CLASS,
)
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
    """Return the negative log-likelihood of labels: -log_probs at the label.

    With weights of classes "mean" divides by the sum of weight * class_weight[label].
    """
    b = as_value("nll_loss", log_probs).builder
    as_value("nll_loss", labels)
    node = b.free_name("nll_loss", name)
    how = Options(reduction, class_weight, ignore)
    with b.all_or_nothing():
        return _nll(Rows(log_probs, labels, weight), how, node)


class Options(NamedTuple):
    """The options of losses by labels."""

    reduction: str
    class_weight: Any
    ignore: int | None
    smoothing: float = 0.0


def _nll(given: Rows, how: Options, node: str) -> Value:
    """Return `nll_loss` with label smoothing; its last node is named `node`."""
    ignore = None if how.ignore is None else checked_whole(f"{node}: ignore", how.ignore, None)
    kind = NllLoss if how.class_weight is None else WeightedNllLoss
    loss = kind(how.reduction, how.smoothing, ignore)
    more = [] if how.class_weight is None else [_class_weights(given.scores, how, node)]

    def apply_to(rows: Rows, name: str) -> Value:
        return apply_loss(loss, rows.scores, rows.labels, *more, weight=rows.weight, name=name)

    return by_class(loss, given, node, apply_to)


def _soft_nll(rows: Rows, how: Options, node: str) -> Value:
    """Return `nll_loss` for labels that are probabilities; its last node is named `node`."""
    logs, target, weight = rows
    if how.class_weight is not None:
        logs = mul(logs, _class_weights(logs, how, node), name=f"{node}.scaled")
    if how.smoothing:
        classes = target.shape[1]
        if not isinstance(classes, int):
            message = f"softmax_loss: label_smoothing takes a number of classes, not {classes}"
            raise misfit(f"{message}\nleave it out: these classes are the rows", scores=logs)
        kept = mul(target, 1 - how.smoothing)
        target = add(kept, how.smoothing / classes, name=f"{node}.smoothed")
    return apply_loss(SoftNllLoss(how.reduction), logs, target, weight=weight, name=node)


def _class_weights(logs: Value, how: Options, node: str) -> Value:
    """Return the class weights as a value; numbers become a constant."""
    given = how.class_weight
    if isinstance(given, Value):
        return given
    return constant(logs.builder, np.asarray(given, float), logs.dtype, f"{node}.class_weight")


@dataclass(frozen=True)
class SoftmaxLoss(RowLoss):
    """logsumexp(s) - s_y of each row: the cross-entropy of softmax, stable for any finite s.

    With smoothing, (1 - smoothing) * s_y + smoothing * mean(s) replaces s_y.
    """

    label_smoothing: float = 0.0

    def reference_rows(self, ins: Sequence[Array]) -> Array:
        rows, (scores, labels) = SoftmaxRows().reference(ins), ins
        own = scores[np.arange(len(labels)), labels]
        return np.asarray(rows + self.label_smoothing * (own - scores.mean(axis=1)))

    def rows(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        """Return the fused loss of each row; smoothing adds its share of s_y - mean(s)."""
        if self.label_smoothing == 0:
            return b.apply(SoftmaxRows(), *ins, name=name)
        scores, labels = ins
        sharp = b.apply(SoftmaxRows(), *ins, name=f"{name}.sharp")
        more = sub(pick(scores, labels), mean(scores, 1))
        return add(sharp, mul(more, self.label_smoothing), name=name)


@loss_function(
    "x",
    "y",
    scores="Floats (N, C) or (N, C, d1, ...).",
    labels="Class numbers (N,) or (N, d1, ...), or probabilities of the scores' shape.",
    label_smoothing="The share, from 0 to 1, of each target that is spread evenly over all classes "
    "(Szegedy et al. 2016, arXiv:1512.00567).",
    **_BY_CLASS,
)
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
    """Return the cross-entropy of the softmax of scores: `log_softmax` and `nll_loss` in one.

    It is exact for any finite scores.
    """
    b = as_value("softmax_loss", scores).builder
    as_value("softmax_loss", labels)
    hint = "0.1 leaves 90 % of the target to the label"
    what = "softmax_loss: label_smoothing"
    share = checked_number(what, label_smoothing, least=0, most=1, hint=hint)
    loss, how = SoftmaxLoss(reduction, share), Options(reduction, class_weight, ignore, share)
    soft = labels.type.is_float and labels.shape == scores.shape
    if soft and ignore is not None:
        message = "ignore is a label, the labels are probabilities\ngive such a row the weight 0"
        raise b.error(loss, message, (scores, labels))
    plain = class_weight is None and ignore is None and not soft
    if scores.type.rank <= 2 and plain:
        return apply_loss(loss, scores, labels, weight=weight, name=name)
    node = b.free_name("softmax_loss", name)

    def apply_to(rows: Rows, last: str) -> Value:
        if plain:
            return apply_loss(loss, rows.scores, rows.labels, weight=rows.weight, name=last)
        rows = rows._replace(scores=log_softmax(rows.scores, name=f"{last}.log"))
        return _soft_nll(rows, how, last) if soft else _nll(rows, how, last)

    with b.all_or_nothing():
        return by_class(loss, Rows(scores, labels, weight), node, apply_to)


class SvmLoss(RowLoss):
    """sum over j != y of max(0, s_j - s_y + 1) of each row; not divided by the classes."""

    def reference_rows(self, ins: Sequence[Array]) -> Array:
        return SvmRows().reference(ins)

    def rows(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        return b.apply(SvmRows(), *ins, name=name)


@loss_function(
    "x",
    "y",
    scores="Floats (N, C).",
    labels="The class number of each row, whole numbers (N,).",
)
def svm_loss(
    scores: Value,
    labels: Value,
    *,
    weight: Value | None = None,
    reduction: str = "mean",
    name: str | None = None,
) -> Value:
    """Return the multiclass hinge loss with margin 1: sum over j != y of max(0, s_j - s_y + 1).

    J. Weston, C. Watkins, "Support vector machines for multi-class pattern recognition", 1999.
    """
    return apply_loss(SvmLoss(reduction), scores, labels, weight=weight, name=name)
