"""Measures of predictions that no net is trained by."""

from __future__ import annotations

from graphc.ir.build import Value, as_value, misfit
from graphc.ops.apply import with_attributes
from graphc.ops.argmax import argmax
from graphc.ops.functions import abs_
from graphc.ops.losses.base import check_scores
from graphc.ops.reduce import mean
from graphc.ops.select import equal
from graphc.ops.shape import as_dtype, cast

__all__ = ["accuracy", "mean_absolute_error"]


@with_attributes(
    example=("(N, 10)", 'x, y, name="accuracy"', "<accuracy: float32[]>"),
    also='y = net.input("y", gc.N, dtype="int64")',
    show="{}",
    scores="Floats (N, C).",
    labels="The class number of each row: whole numbers (N,).",
    returns="A scalar of the scores' dtype.",
    raises="If the operands do not fit each other.",
)
def accuracy(scores: Value, labels: Value, *, name: str | None = None) -> Value:
    """Return the share of rows whose largest score is their label's.

    Of equal scores the first counts.
    """
    scores, labels = as_value("accuracy", scores), as_value("accuracy", labels)
    try:
        check_scores((scores.type, labels.type), "accuracy")
    except ValueError as error:
        raise misfit(f"accuracy: {error}", scores=scores, labels=labels) from None
    hits = equal(argmax(scores, 1), as_dtype(labels, "int64"))
    return mean(cast(hits, scores.dtype), name=name)


@with_attributes(
    example=("(N, 3)", 'x, t, name="error"', "<error: float32[]>"),
    also='t = net.input("t", (gc.N, 3))',
    show="{}",
    target="Floats of one shape (N, ...).",
    returns="A scalar.",
    raises="If the types differ, or are not floats.",
)
def mean_absolute_error(prediction: Value, target: Value, *, name: str | None = None) -> Value:
    """Return the mean of abs(prediction - target) over rows and features."""
    prediction = as_value("mean_absolute_error", prediction)
    target = as_value("mean_absolute_error", target)
    if prediction.type != target.type or not prediction.type.is_float:
        message = f"prediction is {prediction.type}, target is {target.type}; they must be equal"
        hint = "broadcasting would compare every row with every other"
        raise misfit(
            f"mean_absolute_error: {message}\n{hint}", prediction=prediction, target=target
        )
    return mean(abs_(prediction - target), name=name)
