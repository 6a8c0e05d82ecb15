"""Pictures of training, drawn by matplotlib: curves, confusion matrix, histograms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphc.base.docstrings import with_shared
from graphc.base.errors import GraphError, counted
from graphc.ir.op import Array
from graphc.view.figure import bare, new_figure, save_figure

if TYPE_CHECKING:
    from graphc.compiler.remat.recomputation import Curve
    from graphc.train.history import History

__all__ = ["confusion_counts", "confusion_matrix", "histograms", "learning_curve", "memory_curve"]

NOW = "#1f77b4"
BEFORE = "#8a8f98"
MARKED = 40
"""The most epochs that have a dot each in a learning curve."""
LOGARITHMIC = 50.0
"""The factor spanned by positive numbers above which the axis is logarithmic."""
NUMBERED = 25
"""The most classes for which each cell shows its number and each class its name."""
MOST_NAMES = 8
"""The most names of members in a legend."""
LINES = ("--", "-", ":", "-.")
"""The lines of the numbers of a population, whose colours are those of members."""
COLUMNS = 4
FEWEST_BINS, MOST_BINS = 9, 60
LONGEST_NAME = 30

Curves = Sequence[Sequence[float]]
"""A curve for each member."""

_DRAWS = with_shared("""
Parameters
----------
truth, predicted
    Class numbers from 0, of the shape (N,).
path
    The file to write; its suffix names the format, and is .png by default.

Returns
-------
Path
    The file; a notebook shows its picture.

Raises
------
GraphError
    Without matplotlib, if the file cannot be drawn to, or if what is given does not fit.
""")


@_DRAWS
def learning_curve(
    history: History | Sequence[History], path: str | Path, *, names: Sequence[str] = ()
) -> Path:
    """Draw the losses in one panel and, if there are any, the metrics in another below.

    Parameters
    ----------
    history
        What `gc.fit` returned; `history.plot(path)` does the same.  The curves of a population have
        a colour for each member.
    names
        A name for each member of a population: the curves of one name have one colour, which the
        legend shows.

    Examples
    --------
    >>> history = gc.History(loss=[1.5, 0.9], val_loss=[1.6, 1.1])
    >>> gc.plots.learning_curve(history, "curve.svg").name
    'curve.svg'
    """
    members = history if isinstance(history, Sequence) else [history]
    if names and len(names) != len(members):
        hint = "give one for each history, or none"
        raise GraphError(f"{len(names)} names for {counted(len(members), 'member')}", hint=hint)
    losses: dict[str, Curves] = {"training": [member.loss for member in members]}
    if any(member.val_loss for member in members):
        losses["validation"] = [member.val_loss for member in members]
    panels = [("loss", losses)]
    known = dict.fromkeys(name for member in members for name in member.metrics)
    if known:
        metrics: dict[str, Curves] = {
            name: [member.metrics.get(name, []) for member in members] for name in known
        }
        panels.append(("validation metrics", metrics))
    figure = new_figure("a learning curve", 7.0, 1.0 + 3.4 * len(panels))
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (label, curves) in zip(axes, panels, strict=True):
        _curves(axis, label, curves, names or [str(i) for i in range(len(members))])
        if names:
            _colours_named(axis, names)
        axis.legend(frameon=False)
    axes[-1].set_xlabel("epoch")
    return save_figure(figure, Path(path))


def _spread(curves: Mapping[str, Curves]) -> float:
    """Return the largest number over the smallest, or 0 if some have no logarithm."""
    values = [value for members in curves.values() for curve in members for value in curve]
    if not values or not all(math.isfinite(value) and value > 0 for value in values):
        return 0.0
    return max(values) / min(values)


def _curves(axis: Any, label: str, curves: Mapping[str, Curves], names: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    for number, (name, members) in enumerate(curves.items()):
        if len(members) == 1:
            _curve(axis, members[0], 1.6, label=name)
        else:
            _member_curves(axis, members, name, LINES[number % len(LINES)], names)
    if _spread(curves) > LOGARITHMIC:
        axis.set_yscale("log")
    axis.set_ylabel(label)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    bare(axis)


def _curve(axis: Any, values: Sequence[float], width: float, **look: Any) -> None:
    epochs = range(1, len(values) + 1)
    marker = "o" if len(values) <= MARKED else None
    axis.plot(epochs, values, marker=marker, markersize=2 * width, linewidth=width, **look)


def _member_curves(axis: Any, members: Curves, kind: str, line: str, names: Sequence[str]) -> None:
    """Draw a thin line for each member in the colour of its name, and show the kind of line."""
    colours = _colours(names)
    for name, values in zip(names, members, strict=True):
        _curve(axis, values, 0.9, color=colours[name], linestyle=line)
    axis.plot([], [], color=BEFORE, linestyle=line, label=f"{kind}, {len(members)} members")


def _colours(names: Sequence[str]) -> dict[str, Any]:
    """Return a colour for each different name."""
    from matplotlib import colormaps

    different = list(dict.fromkeys(names))
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(different)))
    return dict(zip(different, shades, strict=True))


def _colours_named(axis: Any, names: Sequence[str]) -> None:
    """Add the first names with their colours to the legend."""
    colours = _colours(names)
    for name in list(colours)[:MOST_NAMES]:
        axis.plot([], [], color=colours[name], label=name)
    if len(colours) > MOST_NAMES:
        axis.plot([], [], color="none", label=f"and {len(colours) - MOST_NAMES} more")


@_DRAWS
def memory_curve(curve: Curve, path: str | Path) -> Path:
    """Draw the memory of a training step over the FLOPs that recomputing values adds to it.

    Parameters
    ----------
    curve
        What `plan.memory.curve()` returns; `curve.plot(path)` does the same.
    """
    figure = new_figure("a memory curve", 6.0, 3.6)
    axis = figure.subplots()
    more = [100 * curve.more(point) for point in curve.points]
    axis.plot(more, [point.total / 1e6 for point in curve.points], marker="o", color=NOW)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("FLOPs more than when every value is kept, %")
    axis.set_ylabel("memory, MB")
    axis.set_title(f"{curve.name}, batch {curve.batch:,}", fontsize=10)
    axis.grid(alpha=0.3)
    bare(axis)
    return save_figure(figure, Path(path))


def confusion_counts(
    truth: ArrayLike, predicted: ArrayLike, classes: int | None = None
) -> NDArray[np.int64]:
    """Return how many rows of each true class (first axis) were predicted as each (second axis).

    Parameters
    ----------
    truth, predicted
        Class numbers from 0, of the shape (N,).
    classes
        The number of classes; by default one more than the largest number.

    Returns
    -------
    ndarray
        Counts (int64) of the shape (classes, classes).

    Raises
    ------
    GraphError
        If these are not class numbers below `classes`, or not equally many.

    Examples
    --------
    >>> gc.plots.confusion_counts([0, 1, 1], [0, 1, 0])
    array([[1, 0],
           [1, 1]])
    """
    a, b = _labels("truth", truth), _labels("predicted", predicted)
    if a.size != b.size:
        raise GraphError(f"truth has {a.size} rows, predicted has {b.size}")
    largest = int(max(a.max(initial=-1), b.max(initial=-1)))
    count = largest + 1 if classes is None else classes
    if largest >= count or count < 1:
        raise GraphError(
            f"the class {largest} occurs, but there are only {count} classes"
            if largest >= 0
            else "there are no rows and no classes",
            hint=f"classes go from 0 to {count - 1}" if count > 0 else "",
        )
    return np.bincount(a * count + b, minlength=count * count).reshape(count, count)


@_DRAWS
def confusion_matrix(
    truth: ArrayLike,
    predicted: ArrayLike,
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    classes: int | None = None,
) -> Path:
    """Draw how many rows of each true class (down) were predicted as each class (across).

    The colour of a cell is its share of the true class.

    Parameters
    ----------
    names
        The names of all classes, in order; by default their numbers.
    classes
        The number of classes; by default that of `names`, or one more than the largest number.

    Examples
    --------
    >>> gc.plots.confusion_matrix([0, 1, 1], [0, 1, 0], "confusion.svg", names=["cat", "dog"]).name
    'confusion.svg'
    """
    if names is not None and classes is None:
        classes = len(names)
    counts = confusion_counts(truth, predicted, classes)
    if names is not None and len(names) != len(counts):
        raise GraphError(f"{len(counts)} classes have {len(names)} names")
    side = 2.0 + 0.42 * min(len(counts), NUMBERED)
    figure = new_figure("a confusion matrix", side + 0.9, side)
    axis = figure.subplots()
    _cells(figure, axis, counts)
    if len(counts) <= NUMBERED:
        _class_names(axis, names or [str(number) for number in range(len(counts))])
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    rows = int(counts.sum())
    right = f"{counts.trace() / rows:.2%} right" if rows else "nothing to compare"
    axis.set_title(f"{right} of {counted(rows, 'row')}", fontsize=10)
    return save_figure(figure, Path(path))


def _labels(what: str, values: ArrayLike) -> Array:
    labels = np.asarray(values)
    if labels.ndim != 1 or (labels.dtype.kind not in "iu" and labels.size):
        raise GraphError(
            f"{what} is {labels.dtype} of shape {labels.shape}, not a vector of class numbers",
            hint="for scores take the largest: scores.argmax(axis=1)",
        )
    if labels.min(initial=0) < 0:
        raise GraphError(f"{what} contains the class {labels.min()}")
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


def _class_names(axis: Any, names: Sequence[str]) -> None:
    upright = max(map(len, names)) > 3
    axis.set_xticks(range(len(names)), names, rotation=90 if upright else 0)
    axis.set_yticks(range(len(names)), names)


@_DRAWS
def histograms(
    arrays: Mapping[str, Array],
    path: str | Path,
    *,
    before: Mapping[str, Array] | None = None,
    magnitudes: bool = False,
) -> Path:
    """Draw a histogram of each array, such as the parameters or the gradients of an executor.

    Zeros, of which relu makes many in gradients, and values that are not finite are left out and
    counted in the panel's title.

    Parameters
    ----------
    arrays
        Arrays of any shape by name: `ex.parameters`, or the result of `ex.backward()`.
    before
        The same arrays at an earlier time, drawn as a grey outline.
    magnitudes
        Whether to draw absolute values on a logarithmic axis.  This suits gradients, which shrink
        by orders of magnitude while a net learns.

    Examples
    --------
    >>> weights = np.random.default_rng(0).standard_normal((64, 100))
    >>> gc.plots.histograms({"affine_1.weight": weights}, "weights.svg").name
    'weights.svg'
    """
    if not arrays:
        raise GraphError("histograms were given no arrays")
    columns = min(COLUMNS, len(arrays))
    rows = math.ceil(len(arrays) / columns)
    figure = new_figure("a histogram", max(3.0 * columns, 4.0), 0.4 + 2.3 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (name, array) in zip(axes, arrays.items(), strict=False):
        old = None if before is None else before.get(name)
        _histogram(axis, name, np.asarray(array), old, magnitudes)
    for axis in axes[len(arrays) :]:
        axis.set_visible(False)
    figure.supxlabel("magnitude" if magnitudes else "value", fontsize=9)
    if before is not None:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
    return save_figure(figure, Path(path))


def _histogram(axis: Any, name: str, array: Array, before: Array | None, magnitudes: bool) -> None:
    now = _counted(array, magnitudes)
    old = None if before is None else _counted(np.asarray(before), magnitudes)
    edges = _edges(now if old is None else np.concatenate([now, old]))
    bounds = 10**edges if magnitudes else edges
    if old is not None:
        axis.stairs(np.histogram(old, edges)[0], bounds, color=BEFORE, label="before", zorder=3)
    counts = np.histogram(now, edges)[0]
    axis.stairs(counts, bounds, fill=True, color=NOW, alpha=0.75, label="now")
    if magnitudes:
        axis.set_xscale("log")
        axis.set_xlim(10 ** math.floor(edges[0]), 10 ** math.ceil(edges[-1]))
        axis.xaxis.set_minor_formatter("")
    else:
        axis.ticklabel_format(axis="x", scilimits=(-2, 3))
        axis.locator_params(axis="x", nbins=5)
    short = name if len(name) <= LONGEST_NAME else "..." + name[3 - LONGEST_NAME :]
    axis.set_title(f"{short}\n{_summary(array, now)}", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.xaxis.get_offset_text().set_fontsize(7)
    axis.set_ylim(bottom=0)
    bare(axis)


def _counted(array: Array, magnitudes: bool) -> NDArray[np.float64]:
    """Return the finite values other than 0, or the decimal logarithms of their magnitudes."""
    flat = array.astype(np.float64).ravel()
    found: NDArray[np.float64] = flat[np.isfinite(flat) & (flat != 0)]
    return np.log10(np.abs(found)) if magnitudes else found


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the edges of the bins: more for more values; a single value is in the middle."""
    low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        room = 0.5 * abs(low) or 0.5
        return np.linspace(low - room, high + room, FEWEST_BINS + 1)
    bins = min(max(round(2 * math.sqrt(values.size)), FEWEST_BINS), MOST_BINS)
    return np.linspace(low, high, bins + 1)


def _summary(array: Array, shown: NDArray[np.float64]) -> str:
    """Return the mean and deviation of all finite values, and what was left out, as text."""
    flat = array.astype(np.float64).ravel()
    finite = flat[np.isfinite(flat)]
    words = [counted(flat.size, "value")]
    if finite.size:
        words.append(f"mean {finite.mean():.2g}, std {finite.std():.2g}")
    if zeros := finite.size - shown.size:
        words.append("all zero" if zeros == flat.size else f"{zeros / flat.size:.0%} zero")
    if odd := flat.size - finite.size:
        words.append(f"{odd:,} NOT FINITE")
    return ", ".join(words[:2]) + ("\n" + ", ".join(words[2:]) if words[2:] else "")
