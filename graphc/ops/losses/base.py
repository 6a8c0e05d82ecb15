"""The bases of losses: a number for each row, then a weighted reduction over the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import ClassVar, NamedTuple

import numpy as np

from graphc.base.arguments import check_choice
from graphc.base.docstrings import with_shared
from graphc.ir.build import Builder, Value, apply
from graphc.ir.op import Array, Layer
from graphc.ir.tensor_type import Shape, TensorType, count, shape_text
from graphc.ops.apply import F
from graphc.ops.elementwise import div, mul
from graphc.ops.reduce import mean
from graphc.ops.shape import reshape, transpose
from graphc.ops.sums import sum_

REDUCTIONS = ("mean", "sum", "none")


@dataclass(frozen=True)
class RowLoss(Layer, base=True):
    """The base of losses with one number per row, which are weighted and reduced.

    "mean" is sum(weight * rows) / sum(weight * counts), where most losses count each row as 1;
    "sum" is sum(weight * rows), and "none" weight * rows.
    """

    takes_pairs = True
    roles: ClassVar[tuple[str, ...]] = ("scores", "labels", "weight")
    optional: ClassVar[int] = 1
    reduction: str = "mean"

    @property
    def operands(self) -> int:
        """The number of operands before the weight."""
        return len(self.roles) - 1

    def rows(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        """Return the loss of each row."""
        raise NotImplementedError

    def reference_rows(self, ins: Sequence[Array]) -> Array:
        """Compute the loss of each row in plain NumPy."""
        raise NotImplementedError

    def infer_rows(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of the rows' losses, here by labels; raise ValueError for misfits."""
        return check_scores(ins, self.name)

    @property
    def counts_by(self) -> tuple[int, ...]:
        """The positions of the operands that give the rows' counts; empty if all are 1."""
        return ()

    def counts(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        """Return how much each row counts in a mean."""
        raise NotImplementedError

    def reference_counts(self, ins: Sequence[Array]) -> Array:
        """Compute how much each row counts, from the operands of `counts_by`, in plain NumPy."""
        raise NotImplementedError

    def divided_by(self, operands: int) -> tuple[int, ...]:
        """Return the positions of the operands that make up the divisor of a mean.

        `operands` is the number of operands.  The result is empty if the divisor is the number of
        rows, or the reduction is not a mean.
        """
        weights = range(self.operands, operands)
        return (*self.counts_by, *weights) if self.reduction == "mean" else ()

    def reference_divisor(self, ins: Sequence[Array]) -> Array:
        """Compute the divisor of a mean, from the operands of `divided_by`, in plain NumPy."""
        counts, weights = ins[: len(self.counts_by)], ins[len(self.counts_by) :]
        counted = self.reference_counts(counts) if counts else np.ones(())
        return np.asarray((weights[0] * counted if weights else counted).sum())

    @staticmethod
    def divisor(name: str) -> str:
        """Return the name of the node that divides a mean of that name."""
        return f"{name}.weight"

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of the reduced loss; raise ValueError if an operand does not fit."""
        if not self.operands <= len(ins) <= self.operands + 1:
            raise ValueError(f"it takes {', '.join(self.roles)}, not {len(ins)} operands")
        rows = self.infer_rows(ins[: self.operands])
        for weight in ins[self.operands :]:
            if weight != rows:
                raise ValueError(f"weight is {weight}, there must be one for each row: {rows}")
        return rows if self.reduction == "none" else rows.with_shape(())

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        """Compute the loss in plain NumPy; training and inference are the same."""
        own, weights = ins[: self.operands], ins[self.operands :]
        rows = self.reference_rows(own)
        weight = weights[0] if weights else np.ones_like(rows)
        if self.reduction == "none":
            return np.asarray(rows * weight)
        total = (rows * weight).sum()
        if self.reduction == "sum":
            return np.asarray(total)
        counting = [ins[i] for i in self.divided_by(len(ins))]
        if not counting:
            return np.asarray(total / rows.size)
        return np.asarray(total / self.reference_divisor(counting).astype(rows.dtype))

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        """Build the rows' losses, their weighting and their reduction."""
        own, weights = ins[: self.operands], ins[self.operands :]
        alone = self.reduction == "none"
        rows = self.rows(b, own, name if alone and not weights else f"{name}.rows")
        for weight in weights:
            rows = mul(rows, weight, name=name if alone else f"{name}.weighted")
        if alone:
            return rows
        if self.reduction == "sum":
            return sum_(rows, name=name)
        counts = [*weights]
        if self.counts_by:
            counts.append(self.counts(b, own, f"{name}.counts"))
        if not counts:
            return mean(rows, name=name)
        total = sum_(rows, name=f"{name}.total")
        count = counts[0] if len(counts) == 1 else mul(*counts, name=f"{name}.counted")
        return div(total, sum_(count, name=self.divisor(name)), name=name)


def apply_loss(
    loss: RowLoss, *operands: Value, weight: Value | None = None, name: str | None = None
) -> Value:
    """Apply a loss to its operands; raise GraphError for a reduction that does not exist."""
    hint = "'none' returns one loss per row, which you can weight or mask"
    check_choice(f"{loss.name}: reduction", loss.reduction, REDUCTIONS, hint=hint)
    weights = () if weight is None else (weight,)
    return apply(loss, *operands, *weights, name=name)


_EXAMPLES = {"x": "(gc.N, 3)", "t": "(gc.N, 3)", "y": 'gc.N, dtype="int64"', "sign": "gc.N"}
"""Inputs that examples in docstrings read, by name."""
_PARAMETERS = {
    "weight": "A number for each row, which its loss is multiplied with.",
    "reduction": '"mean" divides the sum of the losses by their number, or by the sum of their '
    'weights; "sum" is that sum; "none" leaves a loss for each row.',
    "name": "The name of the node.",
}
_SECTIONS = """
Parameters
----------
{parameters}

Returns
-------
Value
    A scalar, or with "none" the losses of the rows.

Raises
------
GraphError
    If operands do not fit each other, or an option is out of range.

Examples
--------
>>> net = gc.Net("example")
{inputs}
>>> gc.{public}({operands})
<{public}_1: float32[]>
"""


def loss_function(*example: str, **parameters: str) -> Callable[[F], F]:
    """Return a decorator that adds sections to the docstring of a loss.

    `parameters` describes those that not all losses have; `example` names an example's inputs.
    """
    texts = _PARAMETERS | parameters
    inputs = "\n".join(f'>>> {name} = net.input("{name}", {_EXAMPLES[name]})' for name in example)

    def decorate(function: F) -> F:
        names = signature(function).parameters
        listed = "\n".join(f"{name}\n    {texts[name]}" for name in names)
        operands = ", ".join(example)
        add = with_shared(_SECTIONS, parameters=listed, inputs=inputs, operands=operands)
        return add(function)

    return decorate


def check_scores(ins: Sequence[TensorType], what: str) -> TensorType:
    """Return the type (N,) of one number a row.

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


class Rows(NamedTuple):
    """The operands of a loss: scores (M, C), labels (M,) or targets (M, C), weights (M,)."""

    scores: Value
    labels: Value
    weight: Value | None


def by_class(
    loss: RowLoss, given: Rows, node: str, apply_to: Callable[[Rows, str], Value]
) -> Value:
    """Apply a loss to the rows of scores (N, C, d1, ...) with labels (N, d1, ...).

    Labels of the scores' own shape are targets with a class axis too.  With reduction "none" the
    result has the labels' shape.  Raise GraphError if shapes do not fit.
    """
    scores, labels, weight = given
    if scores.type.rank <= 2:
        return apply_to(given, node)
    places = (scores.shape[0], *scores.shape[2:])
    _check(loss, given, places)
    rows, classes = count(places), scores.shape[1]

    def flat(value: Value, part: str) -> Value:
        if value.shape == places:
            return reshape(value, (rows,), name=f"{node}.{part}")
        last = (0, *range(2, value.type.rank), 1)
        moved = transpose(value, last, name=f"{node}.{part}_last")
        return reshape(moved, (rows, classes), name=f"{node}.{part}")

    flat_weight = None if weight is None else flat(weight, "weights")
    found = Rows(flat(scores, "scores"), flat(labels, "labels"), flat_weight)
    if loss.reduction != "none":
        return apply_to(found, node)
    return reshape(apply_to(found, f"{node}.each"), places, name=node)


def _check(loss: RowLoss, given: Rows, places: Shape) -> None:
    """Raise GraphError unless labels and weight have a number for each of the places."""
    scores, labels, weight = given
    fits = labels.shape == scores.shape if labels.type.is_float else labels.shape == places
    if not fits:
        message = (
            f"scores have shape {shape_text(scores.shape)}, labels {shape_text(labels.shape)}\n"
            f"there is one label for each place: {shape_text(places)}"
        )
        if labels.shape == scores.shape[:-1]:
            axes = (0, scores.type.rank - 1, *range(1, scores.type.rank - 1))
            message += f"; classes come second: gc.transpose(scores, {axes})"
        raise scores.builder.error(loss, message, (scores, labels))
    if weight is not None and weight.shape != places:
        message = f"weight is {weight.type}, there must be one for each label: {shape_text(places)}"
        raise scores.builder.error(loss, message, (scores, labels, weight))
