"""The learning curve as a picture; the only module that imports matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphc.errors import GraphError
from graphc.loc import caller_loc
from graphc.train.history import History


def plot(history: History, path: Path) -> Path:
    """Losses in one panel and, where there are any, the metrics in another below."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise GraphError(
            "a learning curve is drawn by matplotlib, which is not installed",
            loc=caller_loc(),
            hint="pip install 'graphc-nn[plot]'",
        ) from None
    panels: list[tuple[str, Mapping[str, Sequence[float]]]] = [("loss", _losses(history))]
    if history.metrics:
        panels.append(("validation metrics", history.metrics))
    figure = Figure(figsize=(7.0, 1.0 + 3.4 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (label, curves) in zip(axes, panels, strict=True):
        _panel(axis, label, curves)
    axes[-1].set_xlabel("epoch")
    _save(figure, path)
    return path


def _losses(history: History) -> dict[str, Sequence[float]]:
    losses: dict[str, Sequence[float]] = {"training": history.loss}
    if history.val_loss:
        losses["validation"] = history.val_loss
    return losses


def _panel(axis: Any, label: str, curves: Mapping[str, Sequence[float]]) -> None:
    from matplotlib.ticker import MaxNLocator

    for name, values in curves.items():
        epochs = range(1, len(values) + 1)
        axis.plot(epochs, values, marker="o", markersize=3, linewidth=1.6, label=name)
    axis.set_ylabel(label)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise GraphError(
            f"cannot draw {path}: {reason}", loc=caller_loc(), hint="curve.png is a good name"
        ) from error
