"""Metrics as values of the net: the quality of its outputs, one number a batch."""

from __future__ import annotations

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.build import Value, as_value
from graphc.ops.functions import abs_
from graphc.ops.index import argmax
from graphc.ops.losses.labelled_rows import check_scores
from graphc.ops.reduce import mean
from graphc.ops.select import equal
from graphc.ops.shape import as_dtype, cast


def accuracy(scores: Value, labels: Value, *, name: str | None = None) -> Value:
    """Return the share of rows whose largest score is their label's.

    scores (N, C), labels (N,).  Of equal scores the first counts.  Raise GraphError for other
    shapes, or labels that are not whole numbers.
    """
    scores, labels = as_value("accuracy", scores), as_value("accuracy", labels)
    try:
        check_scores((scores.type, labels.type), "accuracy")
    except ValueError as error:
        raise _misfit("accuracy", str(error), scores=scores, labels=labels) from None
    hits = equal(argmax(scores, 1), as_dtype(labels, "int64"))
    return mean(cast(hits, scores.dtype), name=name)


def mean_absolute_error(prediction: Value, target: Value, *, name: str | None = None) -> Value:
    """Return the mean of abs(prediction - target) over rows and features.

    Both are (N, ...) of one type.
    """
    prediction = as_value("mean_absolute_error", prediction)
    target = as_value("mean_absolute_error", target)
    if prediction.type != target.type or not prediction.type.is_float:
        sentence = f"prediction is {prediction.type}, target is {target.type}; they must be equal"
        hint = "a silent broadcast would compare every row with every other"
        raise _misfit(
            "mean_absolute_error", f"{sentence}\n{hint}", prediction=prediction, target=target
        )
    return mean(abs_(prediction - target), name=name)


def _misfit(what: str, text: str, **operands: Value) -> GraphError:
    sentence, _, hint = text.partition("\n")
    return GraphError(
        f"{what}: {sentence}",
        operands=[value.node.described(role) for role, value in operands.items()],
        loc=caller_loc(),
        hint=hint,
    )
