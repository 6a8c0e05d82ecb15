"""A plot of memory against work, when values are recomputed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graphc.view.plots.figure import NOW, bare, new_figure, save_figure

if TYPE_CHECKING:
    from graphc.compiler.remat.curve import Curve


def memory_curve(curve: Curve, path: str | Path) -> Path:
    """Draw the bytes of each point over the FLOPs that it adds to a training step.

    The suffix names the format.  Raise GraphError without matplotlib, or for a file that cannot be
    drawn to.
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
