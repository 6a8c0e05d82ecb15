"""Losses of scores (N, C, d1, ...): each of the places d1, ... becomes a row of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from graphc.ir.build import Builder, Value
from graphc.ir.tensor_type import count, shape_text
from graphc.ops.losses.row_loss import RowLoss
from graphc.ops.shape import reshape, transpose


class Rows(NamedTuple):
    """Scores (M, C), labels (M,) or targets (M, C), and weights (M,)."""

    scores: Value
    labels: Value
    weight: Value | None


def by_class(
    loss: RowLoss,
    scores: Value,
    labels: Value,
    weight: Value | None,
    node: str,
    apply_to: Callable[[Rows, str], Value],
) -> Value:
    """Apply a loss to the rows of scores (N, C, d1, ...) with labels (N, d1, ...).

    Labels of the scores' own shape are targets with a class axis too.  With reduction "none" the
    result has the labels' shape.  Raise GraphError if shapes do not fit.
    """
    b = scores.builder
    if scores.type.rank <= 2:
        return apply_to(Rows(scores, labels, weight), node)
    places = (scores.shape[0], *scores.shape[2:])
    _check(b, loss, scores, labels, weight)
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


def _check(b: Builder, loss: RowLoss, scores: Value, labels: Value, weight: Value | None) -> None:
    places = (scores.shape[0], *scores.shape[2:])
    fits = labels.shape == scores.shape if labels.type.is_float else labels.shape == places
    if not fits:
        message = (
            f"scores have shape {shape_text(scores.shape)}, labels {shape_text(labels.shape)}\n"
            f"there is one label for each place: {shape_text(places)}"
        )
        if labels.shape == scores.shape[:-1]:
            axes = (0, scores.type.rank - 1, *range(1, scores.type.rank - 1))
            message += f"; classes come second: gc.transpose(scores, {axes})"
        raise b.error(loss, message, (scores, labels))
    if weight is not None and weight.shape != places:
        message = f"weight is {weight.type}, there must be one for each label: {shape_text(places)}"
        raise b.error(loss, message, (scores, labels, weight))
