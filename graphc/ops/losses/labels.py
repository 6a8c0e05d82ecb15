"""Ops on rows of scores with a label each: softmax and hinge losses, label masks, metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.build import Builder, Value
from graphc.ir.expr import Axis, Broadcast, Expr, call, select
from graphc.ir.op import Array, Cotangents, Iteration, NoGradient, Op
from graphc.ir.tensor_type import Dim, TensorType
from graphc.ops.elementwise import mul, sub
from graphc.ops.functions import Softmax, softmax
from graphc.ops.index import ByIndex, OneHot, hit
from graphc.ops.losses.base import check_scores
from graphc.ops.shape import reshape
from graphc.ops.source import constant
from graphc.ops.sums import broadcast_to, sum_

__all__: list[str] = []


class LabelledRows(Op, base=True):
    """The base of losses with one number a row, of scores (N, C) with labels (N,)."""

    takes_pairs = True
    roles: ClassVar[tuple[str, ...]] = ("scores", "labels")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return check_scores(ins, self.name)

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "columns"

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return "each", "row"

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, Dim]:
        return {1: ins[0].shape[1]}


class LabelledGrad(LabelledRows, base=True):
    """The base of their gradients: the cotangent of scores (N, C) from that of the rows (N,)."""

    roles = ("scores", "labels", "drows")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        scores, labels, drows = ins
        if check_scores((scores, labels), self.name) != drows:
            raise ValueError(f"drows are {drows}, scores are {scores}")
        return scores

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return "each", "row", "row"


class SoftmaxRows(LabelledRows):
    """The softmax loss logsumexp(s) - s_y of each row."""

    gradient_text = ("(softmax(scores) - onehot(labels)) * column(d_out)", "")
    operations = 4

    def reference(self, ins: Sequence[Array]) -> Array:
        scores, labels = ins
        shifted = scores - scores.max(axis=1, keepdims=True)
        total = np.log(np.exp(shifted).sum(axis=1))
        return np.asarray(total - shifted[np.arange(len(labels)), labels])

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        scores, labels = ins
        shifted = scores - scores.max(axis)
        total = call("log", call("exp", shifted).sum(axis))
        return total - select(hit(labels), shifted, 0).sum(axis)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return b.apply(SoftmaxRowsGrad(), *ins, dout), None


class SoftmaxRowsGrad(LabelledGrad):
    """The gradient of `SoftmaxRows`: (softmax(s) - onehot(y)) * drows."""

    gradient_text = (
        "column(drows) * softmax(scores) * (d_out - sum(softmax(scores) * d_out, 1))",
        "",
        "sum((softmax(scores) - onehot(labels)) * d_out, 1)",
    )
    operations = 6

    def reference(self, ins: Sequence[Array]) -> Array:
        scores, labels, drows = ins
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        p[np.arange(len(labels)), labels] -= 1
        return np.asarray(p * drows[:, None])

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        scores, labels, drows = ins
        p = Softmax().scalar([scores], axis)
        return (p - hit(labels).cast(p.dtype)) * drows

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return the derivatives by scores and drows, from softmax and a one-hot matrix."""
        scores, labels, drows = ins
        column = reshape(drows, (drows.shape[0], 1))
        p = softmax(scores)
        hot = b.apply(OneHot(scores.shape[1], scores.dtype), labels)
        weighted = mul(p, dout)
        dscores = mul(column, sub(weighted, mul(p, sum_(weighted, 1, keepdims=True))))
        return dscores, None, sum_(mul(sub(p, hot), dout), 1)


def _margins(scores: Array, labels: Array) -> Array:
    """Return max(0, s - s_y + 1), and 0 at the label itself."""
    rows = np.arange(len(labels))
    margins = np.maximum(scores - scores[rows, labels][:, None] + 1, 0)
    margins[rows, labels] = 0
    return np.asarray(margins)


def _margins_of(scores: Expr, labels: Expr, axis: Axis) -> Expr:
    """Return s - s_y + 1, also at the label itself."""
    return scores - select(hit(labels), scores, 0).sum(axis) + 1


class SvmRows(LabelledRows):
    """The multiclass hinge loss of each row (Weston and Watkins 1999)."""

    gradient_text = ("violations(scores, labels) * column(d_out)", "")
    operations = 4

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(_margins(ins[0], ins[1]).sum(axis=1))

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        scores, labels = ins
        return np.asarray(scores - scores[np.arange(len(labels)), labels][:, None] + 1)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        scores, labels = ins
        margins = _margins_of(scores, labels, axis)
        return select(hit(labels), 0, call("maximum", margins, 0)).sum(axis)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return b.apply(SvmRowsGrad(), *ins, dout), None


class SvmRowsGrad(LabelledGrad):
    """The gradient of `SvmRows`: drows where a margin is violated, minus their sum at the label."""

    gradient_text = ("", "", "sum(violations(scores, labels) * d_out, 1)")
    operations = 4

    def reference(self, ins: Sequence[Array]) -> Array:
        scores, labels, drows = ins
        violated = (_margins(scores, labels) > 0).astype(scores.dtype)
        violated[np.arange(len(labels)), labels] = -violated.sum(axis=1)
        return np.asarray(violated * drows[:, None])

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        scores, labels, drows = ins
        own = hit(labels)
        margins = _margins_of(scores, labels, axis)
        violated = select(own, 0, (margins > 0).cast(scores.dtype))
        return select(own, -violated.sum(axis), violated) * drows

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        scores, labels, drows = ins
        ones = broadcast_to(constant(b, 1.0, drows.dtype), drows.shape)
        slope = b.apply(SvmRowsGrad(), scores, labels, ones)
        return None, None, sum_(mul(slope, dout), 1)


@dataclass(frozen=True)
class LabelHit(NoGradient, ByIndex):
    """labels (N,) -> (N, classes), true at the label; a row of the ignored label is all false."""

    roles = ("labels",)
    classes: Dim
    ignore: int | None = None

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (labels,) = ins
        if labels.rank != 1:
            raise ValueError(f"labels are {labels}, there is one for each row")
        self.check_indices(labels.shape, labels)
        return TensorType((*labels.shape, self.classes), "bool")

    @property
    def ignored(self) -> int | None:
        """The ignored label, or None if it cannot be a class."""
        if self.ignore is None or self.ignore < 0:
            return None
        beyond = isinstance(self.classes, int) and self.ignore >= self.classes
        return None if beyond else self.ignore

    def numbers(self) -> Array:
        """Return the classes' numbers; that of the ignored class is one that no label has."""
        assert isinstance(self.classes, int), "a run has a number of them"
        found = np.arange(self.classes)
        if self.ignored is not None:
            found[self.ignored] = np.iinfo(np.int32).min
        return found

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(ins[0][:, None] == self.numbers())

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "elements"

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return ("row",)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        own = hit(ins[0])
        if self.ignored is None:
            return own
        return select(ins[0].cast("int64").equals(self.ignored), own.lift(False), own)

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, Dim]:
        return {0: self.classes}
