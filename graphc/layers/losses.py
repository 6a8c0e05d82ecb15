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
    return _loss("svm_loss", SvmLoss(), {"x": x, "y": y})


@with_shared(_LOSS)
def softmax_loss(x: Array, y: Array) -> tuple[float, Array]:
    """Return the softmax cross-entropy of scores, and its gradient.

    Examples
    --------
    >>> loss, dx = gc.layers.softmax_loss(np.zeros((2, 3)), np.array([0, 2]))
    >>> round(loss, 3)
    1.099
    """
    return _loss("softmax_loss", SoftmaxLoss(), {"x": x, "y": y})


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
    given = {**floats(call, x=x), "y": y, "mask": mask}
    check_sizes(call, "N T V, N T, N T", given)
    rows, steps, classes = np.shape(x)
    flat = {"x": np.reshape(x, (rows * steps, classes)), "y": np.ravel(y), "mask": np.ravel(mask)}
    loss, dx = _loss(call, SoftmaxLoss("sum"), flat, 1 / max(rows, 1))
    return loss, dx.reshape(np.shape(x))


def _loss(
    call: str, layer: Op, given: Mapping[str, Any], share: float = 1.0
) -> tuple[float, Array]:
    """Return a share of a loss and its gradient; raise GraphError for labels out of range."""
    y = np.asarray(given["y"])
    arrays = floats(call, x=given["x"])
    scores = arrays["x"]
    arrays["y"] = y.astype(np.int64) if y.dtype.kind in "iu" else y
    if "mask" in given:
        arrays["mask"] = np.asarray(given["mask"]).astype(scores.dtype)
    infer(call, layer, arrays)
    if not scores.size:
        raise fail(call, "there are no scores to take the mean of", arrays)
    check_range(call, "label", arrays["y"], (scores.shape[1], "classes"), arrays)
    loss, cache = forward(call, layer, arrays)
    (dx,) = backward(call, type(layer), cache, np.full((), share, scores.dtype), of=1)
    return float(loss) * share, dx
