"""The course's losses, each one function that returns the loss and its gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.base.docstrings import with_shared
from graphc.ir.op import Array, Op
from graphc.layers.call import (
    backward,
    check_range,
    check_sizes,
    fail,
    floats,
    forward,
    infer,
    numbers,
)
from graphc.ops.losses.classes import SoftmaxLoss, SvmLoss

_LOSS = """
Parameters
----------
x
    Scores (N, C).
y
    Labels (N,), whole numbers from 0 to C - 1.

Returns
-------
float, Array
    The mean over N, and dx.
"""


@with_shared(_LOSS)
def svm_loss(x: Array, y: Array) -> tuple[float, Array]:
    """Return the hinge loss of scores, and its gradient.

    Examples
    --------
    >>> loss, dx = gc.layers.svm_loss(np.zeros((2, 3)), np.array([0, 2]))
    >>> round(loss, 3)
    2.0
    """
    return _loss("svm_loss", SvmLoss(), _given("svm_loss", x, y=y))


@with_shared(_LOSS)
def softmax_loss(x: Array, y: Array) -> tuple[float, Array]:
    """Return the softmax cross-entropy of scores, and its gradient.

    Examples
    --------
    >>> loss, dx = gc.layers.softmax_loss(np.zeros((2, 3)), np.array([0, 2]))
    >>> round(loss, 3)
    1.099
    """
    return _loss("softmax_loss", SoftmaxLoss(), _given("softmax_loss", x, y=y))


def temporal_softmax_loss(x: Array, y: Array, mask: Array) -> tuple[float, Array]:
    """Return the softmax cross-entropy of the steps that count, and its gradient.

    Parameters
    ----------
    x
        Scores (N, T, V).
    y
        Labels (N, T), whole numbers from 0 to V - 1.
    mask
        Whether each step counts, (N, T).

    Returns
    -------
    float, Array
        The sum over the steps that count, divided by N, and dx.

    Examples
    --------
    >>> y, mask = np.zeros((1, 2), int), np.array([[True, False]])
    >>> round(gc.layers.temporal_softmax_loss(np.zeros((1, 2, 3)), y, mask)[0], 3)
    1.099
    """
    call = "temporal_softmax_loss"
    given = _given(call, x, y=y, mask=mask)
    check_sizes(call, "N T V, N T, N T", given)
    rows, steps, _ = shape = given["x"].shape
    flat = {name: array.reshape(rows * steps, *array.shape[2:]) for name, array in given.items()}
    loss, dx = _loss(call, SoftmaxLoss("sum"), given, flat, 1 / max(rows, 1))
    return loss, dx.reshape(shape)


def _given(call: str, x: Any, **more: Any) -> dict[str, Array]:
    return {**floats(call, x=x), **{name: numbers(call, name, more[name]) for name in more}}


def _loss(
    call: str,
    layer: Op,
    given: Mapping[str, Array],
    flat: Mapping[str, Array] | None = None,
    share: float = 1.0,
) -> tuple[float, Array]:
    """Return a share of a loss and its gradient; raise GraphError for labels out of range.

    `flat` are the arrays that the layer takes, if they are not those that the user gave.
    """
    arrays = dict(flat or given)
    scores, labels = arrays["x"], arrays["y"]
    if "mask" in arrays:
        arrays["mask"] = arrays["mask"].astype(scores.dtype)
    infer(call, layer, arrays, given)
    if not scores.size:
        raise fail(call, "there are no scores to take the mean of", given)
    check_range(call, "label", labels, (scores.shape[1], "classes"), given)
    loss, cache = forward(call, layer, {**arrays, "y": labels.astype(np.int64)})
    (dx,) = backward(call, type(layer), cache, np.full((), share, scores.dtype), of=1)
    return float(loss) * share, dx
