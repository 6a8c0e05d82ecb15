"""Histograms of arrays by name: weights, or their gradients, each in a panel of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.op import Array
from graphc.view.plots.figure import BEFORE, NOW, bare, new_figure, save_figure

COLUMNS = 4
FEWEST_BINS, MOST_BINS = 9, 60
LONGEST_NAME = 30


def histograms(
    arrays: Mapping[str, Array],
    path: str | Path,
    *,
    before: Mapping[str, Array] | None = None,
    magnitudes: bool = False,
) -> Path:
    """Draw a histogram of each array, such as `ex.parameters` or what `ex.backward()` returns.

    `before` holds the arrays as they were earlier, drawn as a grey outline.  With `magnitudes` the
    histograms are of the absolute values on a logarithmic axis, which suits gradients: they shrink
    by orders of magnitude while a net learns.  Zeros, of which relu makes many in gradients, and
    values that are not finite are left out and counted in the panel's title.  Raise GraphError
    without arrays, without matplotlib, or for a file that cannot be drawn to.
    """
    if not arrays:
        raise GraphError("histograms were given no arrays", loc=caller_loc())
    columns = min(COLUMNS, len(arrays))
    rows = math.ceil(len(arrays) / columns)
    figure = new_figure("a histogram", max(3.0 * columns, 4.0), 0.4 + 2.3 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (name, array) in zip(axes, arrays.items(), strict=False):
        old = None if before is None else before.get(name)
        _panel(axis, name, np.asarray(array), old, magnitudes)
    for axis in axes[len(arrays) :]:
        axis.set_visible(False)
    figure.supxlabel("magnitude" if magnitudes else "value", fontsize=9)
    if before is not None:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
    return save_figure(figure, Path(path))


def _panel(axis: Any, name: str, array: Array, before: Array | None, magnitudes: bool) -> None:
    now = _shown(array, magnitudes)
    old = None if before is None else _shown(np.asarray(before), magnitudes)
    edges = _edges(now if old is None else np.concatenate([now, old]))
    borders = 10**edges if magnitudes else edges
    if old is not None:
        axis.stairs(np.histogram(old, edges)[0], borders, color=BEFORE, label="before", zorder=3)
    counts = np.histogram(now, edges)[0]
    axis.stairs(counts, borders, fill=True, color=NOW, alpha=0.75, label="now")
    if magnitudes:
        axis.set_xscale("log")
        axis.set_xlim(10 ** math.floor(edges[0]), 10 ** math.ceil(edges[-1]))
        axis.xaxis.set_minor_formatter("")
    else:
        axis.ticklabel_format(axis="x", scilimits=(-2, 3))
        axis.locator_params(axis="x", nbins=5)
    short = name if len(name) <= LONGEST_NAME else "..." + name[3 - LONGEST_NAME :]
    axis.set_title(f"{short}\n{_told(array, now)}", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.xaxis.get_offset_text().set_fontsize(7)
    axis.set_ylim(bottom=0)
    bare(axis)


def _shown(array: Array, magnitudes: bool) -> NDArray[np.float64]:
    """Return the counted values, or the decimal logarithms of their magnitudes."""
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


def _told(array: Array, shown: NDArray[np.float64]) -> str:
    """Return the mean and deviation of all finite values, and what was left out, as text."""
    flat = array.astype(np.float64).ravel()
    finite = flat[np.isfinite(flat)]
    words = [f"{flat.size:,} value{'' if flat.size == 1 else 's'}"]
    if finite.size:
        words.append(f"mean {finite.mean():.2g}, std {finite.std():.2g}")
    if zeros := finite.size - shown.size:
        words.append("all zero" if zeros == flat.size else f"{zeros / flat.size:.0%} zero")
    if odd := flat.size - finite.size:
        words.append(f"{odd:,} NOT FINITE")
    return ", ".join(words[:2]) + ("\n" + ", ".join(words[2:]) if words[2:] else "")
