"""Kernels of the losses of rows of scores.

NumPy takes long for reductions over many short rows, so scores of few classes are transposed:
a reduction then runs over a few long rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from graphc.backends.numpy.kernel import Call, Kernel, number
from graphc.backends.numpy.reduce import place_in_rows
from graphc.ir.op import Array, Op
from graphc.ops.losses.label_hit import LabelHit

_FEW = 64
"""The most classes for which transposing is quicker (measured for 32 to 256 rows)."""


class _Table:
    """The scores of a kernel and their copy `work`, which is (classes, rows) if classes are few.

    `source` holds the scores once `load` ran; it may be the memory of `work`.
    """

    def __init__(self, scores: Array, work: Array) -> None:
        self.few = scores.shape[1] <= _FEW
        self.axis = 0 if self.few else 1
        self.work = work.reshape(scores.shape[::-1]) if self.few else work
        self.source = self.work if self.few else scores
        self.flat_source, self.flat = self.source.reshape(-1), self.work.reshape(-1)
        self.load = (partial(np.copyto, self.work, scores.T),) if self.few else ()

    def spread(self, rows: Array) -> Array:
        """Return one number a row, shaped to broadcast over the table."""
        return rows if self.few else rows[:, None]

    def place(self, labels: Array, rows: Array, places: Array) -> Sequence[Call]:
        """Return calls: places = the positions of the labels in the flat table."""
        if self.few:
            return place_in_rows(rows, labels, len(rows), places)
        return place_in_rows(labels, rows, self.work.shape[1], places)

    def sum(self, ones: Array, out: Array) -> Call:
        """Return a call for the sum of each row of scores, by a product with ones."""
        return partial(ones.dot, self.work, out) if self.few else partial(self.work.dot, ones, out)

    def exponents(self, column: Array) -> Sequence[Call]:
        """Return calls: work = scores minus the largest of the row, which `column` holds."""
        return (
            *self.load,
            partial(np.maximum.reduce, self.source, self.axis, None, column),
            partial(np.subtract, self.source, self.spread(column), self.work),
        )

    def margins(self, labels: Array, column: Array, places: Array, rows: Array) -> Sequence[Call]:
        """Return calls: work = s_j - s_y + 1."""
        return (
            *self.load,
            *self.place(labels, rows, places),
            partial(self.flat_source.take, places, None, column, "clip"),
            partial(np.subtract, column, number(1, column), column),
            partial(np.subtract, self.source, self.spread(column), self.work),
        )


def softmax_rows(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls for logsumexp(s) - s_y."""
    scores, labels = ins
    work, column, places, rows, ones = scratch
    table = _Table(scores, work)
    return (
        *table.exponents(column),
        *table.place(labels, rows, places),
        partial(table.flat.take, places, None, out, "clip"),
        partial(np.exp, table.work, table.work),
        table.sum(ones, column),
        partial(np.log, column, column),
        partial(np.subtract, column, out, out),
    )


def softmax_rows_grad(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls for softmax(s) * drows, less drows at the label."""
    scores, labels, drows = ins
    work, column, places, chosen, rows, ones = scratch
    table = _Table(scores, work)
    return (
        *table.exponents(column),
        partial(np.exp, table.work, table.work),
        table.sum(ones, column),
        partial(np.true_divide, drows, column, column),
        partial(np.multiply, table.work, table.spread(column), table.work),
        *table.place(labels, rows, places),
        partial(table.flat.take, places, None, chosen, "clip"),
        partial(np.subtract, chosen, drows, chosen),
        partial(table.flat.__setitem__, places, chosen),
        partial(np.copyto, out, table.work.T if table.few else table.work),
    )


def svm_rows(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls for the sum of the margins above 0, without the label's."""
    scores, labels = ins
    work, column, places, rows, ones = scratch
    table = _Table(scores, work)
    zero = np.zeros((), out.dtype)
    return (
        *table.margins(labels, column, places, rows),
        partial(table.work.clip, number(0, work), number(np.inf, work), table.work),
        partial(table.flat.__setitem__, places, zero),
        table.sum(ones, out),
    )


def svm_rows_grad(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls for drows where a margin is violated, minus their number at the label."""
    scores, labels, drows = ins
    work, column, places, violated, rows, ones = scratch
    table = _Table(scores, work)
    violated = violated.reshape(table.work.shape)
    zero = np.zeros((), out.dtype)
    return (
        *table.margins(labels, column, places, rows),
        partial(np.greater, table.work, number(0, work), violated),
        partial(np.copyto, table.work, violated),
        partial(table.flat.__setitem__, places, zero),
        table.sum(ones, column),
        partial(np.negative, column, column),
        partial(table.flat.__setitem__, places, column),
        partial(np.multiply, table.work, table.spread(drows), table.work),
        partial(np.copyto, out, table.work.T if table.few else table.work),
    )


def label_hit(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls that compare the label of each row with every class."""
    assert isinstance(op, LabelHit)
    numbers = op.numbers().astype(ins[0].dtype, copy=False)
    return (partial(np.equal, ins[0][:, None], numbers, out),)


LOSS: dict[str, Kernel] = {
    "label_hit": label_hit,
    "softmax_rows": softmax_rows,
    "softmax_rows_grad": softmax_rows_grad,
    "svm_rows": svm_rows,
    "svm_rows_grad": svm_rows_grad,
}
