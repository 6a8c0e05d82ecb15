"""The confusion matrix: the classes that a model takes for each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.op import Array
from graphc.view.plots.figure import new_figure, save_figure

NUMBERED = 25
"""The most classes for which each cell shows its number and each class its name."""


def confusion_counts(
    truth: ArrayLike, predicted: ArrayLike, classes: int | None = None
) -> NDArray[np.int64]:
    """Return how many rows of each true class (first axis) were taken for each (second axis).

    `truth` and `predicted` (N,) are class numbers from 0; `classes` is their count, by default one
    more than the largest.  Raise GraphError for anything else.
    """
    a, b = _labels("truth", truth), _labels("predicted", predicted)
    if a.size != b.size:
        raise GraphError(f"truth has {a.size} rows, predicted has {b.size}", loc=caller_loc())
    largest = int(max(a.max(initial=-1), b.max(initial=-1)))
    count = largest + 1 if classes is None else classes
    if largest >= count or count < 1:
        raise GraphError(
            f"the class {largest} occurs, but there are only {count} classes"
            if largest >= 0
            else "there are no rows and no classes",
            loc=caller_loc(),
            hint=f"classes go from 0 to {count - 1}" if count > 0 else "",
        )
    return np.bincount(a * count + b, minlength=count * count).reshape(count, count)


def confusion_matrix(
    truth: ArrayLike,
    predicted: ArrayLike,
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    classes: int | None = None,
) -> Path:
    """Draw how many rows of each true class (down) were taken for each class (across).

    Colours are shares of the true class.  `truth`, `predicted` (N,) and `classes` are as for
    `confusion_counts`; `names` are those of all classes.  Raise GraphError for other arrays,
    without matplotlib, or for a file that cannot be drawn to.
    """
    if names is not None and classes is None:
        classes = len(names)
    counts = confusion_counts(truth, predicted, classes)
    if names is not None and len(names) != len(counts):
        raise GraphError(f"{len(counts)} classes have {len(names)} names", loc=caller_loc())
    side = 2.0 + 0.42 * min(len(counts), NUMBERED)
    figure = new_figure("a confusion matrix", side + 0.9, side)
    axis = figure.subplots()
    _cells(figure, axis, counts)
    if len(counts) <= NUMBERED:
        _names(axis, names or [str(number) for number in range(len(counts))])
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    rows = int(counts.sum())
    right = f"{counts.trace() / rows:.2%} right" if rows else "nothing to compare"
    axis.set_title(f"{right} of {rows:,} row{'' if rows == 1 else 's'}", fontsize=10)
    return save_figure(figure, Path(path))


def _labels(what: str, values: ArrayLike) -> Array:
    labels = np.asarray(values)
    if labels.ndim != 1 or (labels.dtype.kind not in "iu" and labels.size):
        raise GraphError(
            f"{what} is {labels.dtype} of shape {labels.shape}, not a vector of class numbers",
            loc=caller_loc(),
            hint="for scores take the largest: scores.argmax(axis=1)",
        )
    if labels.min(initial=0) < 0:
        raise GraphError(f"{what} holds the class {labels.min()}", loc=caller_loc())
    return labels.astype(np.int64)


def _cells(figure: Any, axis: Any, counts: NDArray[np.int64]) -> None:
    """Draw numbers, and colours by the square root of the share, so that few mistakes show."""
    from matplotlib.colors import PowerNorm

    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axis.imshow(share, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    figure.colorbar(image, ax=axis, label="share of the true class", ticks=[0, 0.1, 0.25, 0.5, 1])
    if len(counts) > NUMBERED:
        return
    size = 9 if counts.max() < 1000 else 7
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if share[row, column] > 0.4 else "black"
            axis.text(
                column, row, str(count), ha="center", va="center", color=colour, fontsize=size
            )


def _names(axis: Any, names: Sequence[str]) -> None:
    upright = max(map(len, names)) > 3
    axis.set_xticks(range(len(names)), names, rotation=90 if upright else 0)
    axis.set_yticks(range(len(names)), names)
