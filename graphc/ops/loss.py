"""Losses: one number a row, and what becomes of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.build import Builder, Value
from graphc.errors import GraphError
from graphc.loc import caller_loc
from graphc.op import Array, Layer, Op
from graphc.ops.elementwise import div, mul, power, sub
from graphc.ops.functions import softmax
from graphc.ops.reduce import OneHot, broadcast_to, mean, sum_
from graphc.ops.shape import reshape
from graphc.ops.source import constant
from graphc.plan import Emitter
from graphc.tensor_type import TensorType, shape_text

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


def check_scores(ins: Sequence[TensorType], what: str) -> TensorType:
    """The type of one number a row; ValueError unless scores (N, C) and labels (N,) fit."""
    scores, labels = ins
    if scores.rank != 2 or not scores.is_float:
        raise ValueError(f"scores are {scores}, {what} takes floats of shape (N, classes)")
    if labels.is_float or labels.dtype == "bool":
        raise ValueError(
            f"labels are {labels.dtype}, {what} takes class numbers\n"
            "declare them as net.input('y', (gc.N,), dtype='int64')"
        )
    if labels.shape != scores.shape[:1]:
        raise ValueError(
            f"labels have shape {shape_text(labels.shape)}, "
            f"scores have rows {shape_text(scores.shape[:1])}"
        )
    return scores.with_shape(scores.shape[:1])


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


class LabelledRows(Op):
    """One number a row of scores (N, C) with labels (N,)."""

    roles = ("scores", "labels")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return check_scores(ins, self.name)

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, int]:
        classes = ins[0].shape[1]
        return {1: classes} if isinstance(classes, int) else {}

    def lower(self, em: Emitter, ins: Sequence[str], out: str) -> None:
        """Scratch: like scores, a number a row, the labels' places; row numbers and ones."""
        scores, rows = em.type(ins[0]), em.type(out)
        work = [em.scratch(t) for t in (scores, rows, rows.with_dtype("int64"))]
        em.call(self.name, ins, out, scratch=(*work, *_vectors(em, scores)))


def _vectors(em: Emitter, scores: TensorType) -> tuple[str, str]:
    """Numbers of the rows, and ones to sum over the classes with."""
    return em.row_numbers(scores), em.ones(scores.with_shape(scores.shape[1:]))


class LabelledGrad(Op):
    """The cotangent of scores (N, C) from that of a number a row."""

    roles = ("scores", "labels", "drows")

    def extra(self, scores: TensorType, rows: TensorType) -> TensorType:
        """The type of one more scratch buffer."""
        raise NotImplementedError

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        scores, labels, drows = ins
        if check_scores((scores, labels), self.name) != drows:
            raise ValueError(f"drows are {drows}, scores are {scores}")
        return scores

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, int]:
        classes = ins[0].shape[1]
        return {1: classes} if isinstance(classes, int) else {}

    def lower(self, em: Emitter, ins: Sequence[str], out: str) -> None:
        """Scratch: as for the rows, with `extra` after the places."""
        scores, rows = em.type(ins[0]), em.type(ins[2])
        types = (scores, rows, rows.with_dtype("int64"), self.extra(scores, rows))
        work = [em.scratch(t) for t in types]
        em.call(self.name, ins, out, scratch=(*work, *_vectors(em, scores)))


@dataclass(frozen=True)
class SoftmaxRows(LabelledRows):
    """logsumexp(s) - s_y of each row."""

    name = "softmax_rows"

    def reference(self, ins: Sequence[Array]) -> Array:
        scores, labels = ins
        shifted = scores - scores.max(axis=1, keepdims=True)
        total = np.log(np.exp(shifted).sum(axis=1))
        return np.asarray(total - shifted[np.arange(len(labels)), labels])

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return b.apply(SoftmaxRowsGrad(), *ins, dout), None


@dataclass(frozen=True)
class SoftmaxRowsGrad(LabelledGrad):
    """(softmax(s) - onehot(y)) * drows."""

    name = "softmax_rows_grad"

    def extra(self, scores: TensorType, rows: TensorType) -> TensorType:
        """A number a row."""
        return rows

    def reference(self, ins: Sequence[Array]) -> Array:
        scores, labels, drows = ins
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        p[np.arange(len(labels)), labels] -= 1
        return np.asarray(p * drows[:, None])

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        scores, labels, drows = ins
        column = reshape(drows, (drows.shape[0], 1))
        p = softmax(scores)
        classes = scores.shape[1]
        assert isinstance(classes, int)
        hot = b.apply(OneHot(classes, scores.dtype), labels)
        weighted = mul(p, dout)
        dscores = mul(column, sub(weighted, mul(p, sum_(weighted, 1, keepdims=True))))
        return dscores, None, sum_(mul(sub(p, hot), dout), 1)


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


def _margins(scores: Array, labels: Array) -> Array:
    rows = np.arange(len(labels))
    margins = np.maximum(scores - scores[rows, labels][:, None] + 1, 0)
    margins[rows, labels] = 0
    return np.asarray(margins)


@dataclass(frozen=True)
class SvmRows(LabelledRows):
    """The multiclass hinge loss of each row (Weston and Watkins 1999)."""

    name = "svm_rows"

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(_margins(ins[0], ins[1]).sum(axis=1))

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return b.apply(SvmRowsGrad(), *ins, dout), None


@dataclass(frozen=True)
class SvmRowsGrad(LabelledGrad):
    """drows where a margin is violated, and minus their number at the label."""

    name = "svm_rows_grad"

    def extra(self, scores: TensorType, rows: TensorType) -> TensorType:
        """Which margins are violated."""
        return scores.with_dtype("bool")

    def reference(self, ins: Sequence[Array]) -> Array:
        scores, labels, drows = ins
        violated = (_margins(scores, labels) > 0).astype(scores.dtype)
        violated[np.arange(len(labels)), labels] = -violated.sum(axis=1)
        return np.asarray(violated * drows[:, None])

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        scores, labels, drows = ins
        ones = broadcast_to(constant(b, 1.0, drows.dtype), drows.shape)
        slope = b.apply(SvmRowsGrad(), scores, labels, ones)
        return None, None, sum_(mul(slope, dout), 1)


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
            f"{kind.name}: reduction {reduction!r} is not one of mean, sum, none", loc=caller_loc()
        )
    operands = (a, b) if weight is None else (a, b, weight)
    return a.builder.apply(kind(reduction), *operands, name=name)
