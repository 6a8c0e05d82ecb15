"""The losses of labelled rows of scores, one number a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.ir.build import Builder, Value
from graphc.ir.expr import Axis, Broadcast, Expr, call, select
from graphc.ir.op import Array, Iteration, Op
from graphc.ir.tensor_type import TensorType, shape_text
from graphc.ops.elementwise import mul, sub
from graphc.ops.functions import Softmax, softmax
from graphc.ops.index import OneHot, hit
from graphc.ops.reduce import broadcast_to, sum_
from graphc.ops.shape import reshape
from graphc.ops.source import constant


def check_scores(ins: Sequence[TensorType], what: str) -> TensorType:
    """Return the type of one number a row.

    Raise ValueError unless scores (N, C) and labels (N,) fit.
    """
    scores, labels = ins
    if scores.rank != 2 or not scores.is_float:
        swapped = labels.rank == 2 and labels.is_float
        hint = f"the scores come first: gc.{what}(scores, labels)" if swapped else ""
        raise ValueError(f"scores are {scores}, {what} takes floats of shape (N, classes)\n{hint}")
    if labels.is_float or labels.dtype == "bool":
        raise ValueError(
            f"labels are {labels.dtype}, {what} takes class numbers\n"
            "declare them as net.input('y', (gc.N,), dtype='int64')"
        )
    if labels.shape != scores.shape[:1]:
        raise ValueError(
            f"labels have shape {shape_text(labels.shape)}, "
            f"{what} takes one class number a row: {shape_text(scores.shape[:1])}\n"
            "for one-hot rows write gc.argmax(labels, axis=1)"
        )
    return scores.with_shape(scores.shape[:1])


class LabelledRows(Op):
    """The base of losses with one number a row, of scores (N, C) with labels (N,)."""

    roles = ("scores", "labels")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return check_scores(ins, self.name)

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "columns"

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return "each", "row"

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, int]:
        classes = ins[0].shape[1]
        return {1: classes} if isinstance(classes, int) else {}


class LabelledGrad(Op):
    """The cotangent of scores (N, C) from the cotangent of one number a row."""

    roles = ("scores", "labels", "drows")

    def extra(self, scores: TensorType, rows: TensorType) -> TensorType:
        """Return the type of one more scratch buffer."""
        raise NotImplementedError

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        scores, labels, drows = ins
        if check_scores((scores, labels), self.name) != drows:
            raise ValueError(f"drows are {drows}, scores are {scores}")
        return scores

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "columns"

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return "each", "row", "row"

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, int]:
        classes = ins[0].shape[1]
        return {1: classes} if isinstance(classes, int) else {}


class SoftmaxRows(LabelledRows):
    """The softmax loss logsumexp(s) - s_y of each row."""

    name = "softmax_rows"
    gradient_text = ("(softmax(scores) - onehot(labels)) * column(d_out)", "")

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

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return b.apply(SoftmaxRowsGrad(), *ins, dout), None


class SoftmaxRowsGrad(LabelledGrad):
    """The gradient of `SoftmaxRows`: (softmax(s) - onehot(y)) * drows."""

    name = "softmax_rows_grad"
    gradient_text = (
        "column(drows) * softmax(scores) * (d_out - sum(softmax(scores) * d_out, 1))",
        "",
        "sum((softmax(scores) - onehot(labels)) * d_out, 1)",
    )

    def extra(self, scores: TensorType, rows: TensorType) -> TensorType:
        """Return the type of a number a row."""
        return rows

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


def _margins(scores: Array, labels: Array) -> Array:
    rows = np.arange(len(labels))
    margins = np.maximum(scores - scores[rows, labels][:, None] + 1, 0)
    margins[rows, labels] = 0
    return np.asarray(margins)


def _margins_of(scores: Expr, labels: Expr, axis: Axis) -> Expr:
    """Return s - s_y + 1, also at the label itself."""
    return scores - select(hit(labels), scores, 0).sum(axis) + 1


class SvmRows(LabelledRows):
    """The multiclass hinge loss of each row (Weston and Watkins 1999)."""

    name = "svm_rows"
    gradient_text = ("violations(scores, labels) * column(d_out)", "")

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(_margins(ins[0], ins[1]).sum(axis=1))

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        scores, labels = ins
        return np.asarray(scores - scores[np.arange(len(labels)), labels][:, None] + 1)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        scores, labels = ins
        margins = _margins_of(scores, labels, axis)
        return select(hit(labels), 0, call("maximum", margins, 0)).sum(axis)

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return b.apply(SvmRowsGrad(), *ins, dout), None


class SvmRowsGrad(LabelledGrad):
    """The gradient of `SvmRows`: drows where a margin is violated, minus their sum at the label."""

    name = "svm_rows_grad"
    gradient_text = ("", "", "sum(violations(scores, labels) * d_out, 1)")

    def extra(self, scores: TensorType, rows: TensorType) -> TensorType:
        """Return the type of a mask of the violated margins."""
        return scores.with_dtype("bool")

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

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        scores, labels, drows = ins
        ones = broadcast_to(constant(b, 1.0, drows.dtype), drows.shape)
        slope = b.apply(SvmRowsGrad(), scores, labels, ones)
        return None, None, sum_(mul(slope, dout), 1)
