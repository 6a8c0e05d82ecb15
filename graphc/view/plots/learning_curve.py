"""The learning curve: losses and metrics over the epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.view.plots.figure import bare, new_figure, save_figure

if TYPE_CHECKING:
    from graphc.train.history import History

MARKED = 40
"""The most epochs that have a dot each."""
LOGARITHMIC = 50.0
"""The factor spanned by positive numbers above which the axis is logarithmic."""


def learning_curve(history: History, path: str | Path) -> Path:
    """Draw the losses in one panel and, if there are any, the metrics in another below.

    The suffix names the format.  Raise GraphError without matplotlib, or for a file that cannot be
    drawn to.
    """
    panels: list[tuple[str, Mapping[str, Sequence[float]]]] = [("loss", _losses(history))]
    if history.metrics:
        panels.append(("validation metrics", history.metrics))
    figure = new_figure("a learning curve", 7.0, 1.0 + 3.4 * len(panels))
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (label, curves) in zip(axes, panels, strict=True):
        _panel(axis, label, curves)
    axes[-1].set_xlabel("epoch")
    return save_figure(figure, Path(path))


def _spread(curves: Mapping[str, Sequence[float]]) -> float:
    """Return the largest number over the smallest, or 0 if some have no logarithm."""
    values = [value for curve in curves.values() for value in curve]
    if not values or not all(math.isfinite(value) and value > 0 for value in values):
        return 0.0
    return max(values) / min(values)


def _losses(history: History) -> dict[str, Sequence[float]]:
    losses: dict[str, Sequence[float]] = {"training": history.loss}
    if history.val_loss:
        losses["validation"] = history.val_loss
    return losses


def _panel(axis: Any, label: str, curves: Mapping[str, Sequence[float]]) -> None:
    from matplotlib.ticker import MaxNLocator

    for name, values in curves.items():
        epochs = range(1, len(values) + 1)
        marker = "o" if len(values) <= MARKED else None
        axis.plot(epochs, values, marker=marker, markersize=3, linewidth=1.6, label=name)
    if _spread(curves) > LOGARITHMIC:
        axis.set_yscale("log")
    axis.set_ylabel(label)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    bare(axis)
    axis.legend(frameon=False)
