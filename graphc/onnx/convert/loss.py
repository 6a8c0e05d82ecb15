"""Converters of losses of labelled scores (N, C, d1, ..., dk) with labels (N, d1, ..., dk)."""

from __future__ import annotations

from collections.abc import Callable

import graphc as gc
from graphc.ir.build import Value
from graphc.ir.tensor_type import count
from graphc.onnx.call import Call, Result


def _softmax_cross_entropy(call: Call) -> Result:
    scores, labels = call.value(0), call.value(1)
    reduction = call.attribute("reduction", "mean")
    ignored = call.attribute("ignore_index")
    plain = scores.type.rank == 2 and not call.has(2) and ignored is None
    if plain and not call.asks(1):
        return gc.softmax_loss(scores, labels, reduction=reduction)
    log_prob = gc.log_softmax(scores, 1)
    return [_picked(call, log_prob, labels, reduction), log_prob]


def _negative_log_likelihood(call: Call) -> Value:
    return _picked(call, call.value(0), call.value(1), call.attribute("reduction", "mean"))


def _picked(call: Call, log_prob: Value, labels: Value, reduction: str) -> Value:
    """Return the reduced loss of the labels, weighted by class, without the ignored labels."""
    rows = _rows(log_prob)
    classes = rows.shape[1]
    assert isinstance(classes, int)
    each = gc.reshape(labels, rows.shape[:1])
    ignored = call.attribute("ignore_index")
    hit = None if ignored is None else gc.not_equal(each, int(ignored))
    if hit is not None:
        each = gc.where(hit, each, 0)
    loss = -gc.pick(rows, each)
    weight = None
    if call.has(2):
        row = gc.reshape(call.value(2), (1, classes))
        weight = gc.pick(gc.broadcast_to(row, rows.shape), each)
    if hit is not None:
        counted = gc.cast(hit, loss.dtype)
        weight = counted if weight is None else weight * counted
    return _reduced(loss, weight, reduction, labels)


def _reduced(loss: Value, weight: Value | None, reduction: str, labels: Value) -> Value:
    weighted = loss if weight is None else loss * weight
    if reduction == "none":
        return gc.reshape(weighted, labels.shape)
    if reduction == "sum":
        return gc.sum(weighted)
    return gc.mean(loss) if weight is None else gc.sum(weighted) / gc.sum(weight)


def _rows(x: Value) -> Value:
    """Return (N, C, d1, ..., dk) as (N*d1*...*dk, C)."""
    if x.type.rank == 2:
        return x
    order = (0, *range(2, x.type.rank), 1)
    moved = gc.transpose(x, order)
    return gc.reshape(moved, (count(moved.shape[:-1]), x.shape[1]))


CONVERTERS: dict[str, Callable[[Call], Result]] = {
    "NegativeLogLikelihoodLoss": _negative_log_likelihood,
    "SoftmaxCrossEntropyLoss": _softmax_cross_entropy,
}
