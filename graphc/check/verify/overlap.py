"""Rectangles of bytes and time: whether any two overlap, and which follow each other.

Addresses are cut at all edges of rectangles.  In each cell between two cuts the rectangles that
cover it must follow each other in time, so it is enough to compare neighbours.  That takes
O(k log k) for k pairs of rectangle and cell; if rectangles cover more than `DENSE` cells each on
average, a sweep over time with the live rectangles in order of addresses takes O(n log n).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np

from graphc.check.certificate.tables import Ints
from graphc.check.verify.facts import distinct, ordering

DENSE = 64


@dataclass(frozen=True, slots=True)
class Rectangles:
    """Bytes from `low` to before `high`, from time `start` to `end`, both included."""

    low: Ints
    high: Ints
    start: Ints
    end: Ints


@dataclass(frozen=True, slots=True)
class Sharing:
    """Shared bytes: the first two rectangles that overlap in time, or pairs in succession."""

    conflict: tuple[int, int] | None
    before: Ints
    after: Ints
    """With `before`, all pairs of rectangles where one takes over some byte from the other, each
    once for each cell."""


def sharing(r: Rectangles) -> Sharing:
    """Compare rectangles; empty ones touch nothing.  Of several conflicts return the earliest."""
    order = np.flatnonzero(r.low < r.high)
    order = order[np.lexsort((r.end[order], r.start[order]))]
    if not len(order):
        return Sharing(None, order, order)
    cuts = distinct(np.concatenate((r.low[order], r.high[order])))
    first = np.searchsorted(cuts, r.low[order])
    cells = np.searchsorted(cuts, r.high[order]) - first
    if int(cells.sum()) > DENSE * len(order):
        return _swept(r, order)
    owner = np.repeat(np.arange(len(order)), cells)
    inside = np.arange(len(owner)) - np.repeat(np.cumsum(cells) - cells, cells)
    cell = first[owner] + inside
    by_cell = ordering(cell)  # within a cell they stay in order of time
    owner, cell = owner[by_cell], cell[by_cell]
    same = np.flatnonzero(cell[1:] == cell[:-1])
    before, after = order[owner[same]], order[owner[same + 1]]
    clash = np.flatnonzero(r.end[before] >= r.start[after])
    if len(clash):
        worst = clash[np.argmin(r.start[after[clash]])]
        return Sharing((int(before[worst]), int(after[worst])), before[:0], after[:0])
    return Sharing(None, before, after)


def _swept(r: Rectangles, order: Ints) -> Sharing:
    """Compare rectangles, as `sharing` does, by a sweep over time.

    Bytes keep the number of the rectangle that had them last, as spans in order of addresses; a new
    rectangle replaces the spans that it covers.  Each adds at most three.
    """
    starts: list[int] = []
    spans: dict[int, tuple[int, int]] = {}  # start -> end, rectangle
    before: list[int] = []
    after: list[int] = []
    low, high = r.low.tolist(), r.high.tolist()
    begin, end = r.start.tolist(), r.end.tolist()
    for i in order.tolist():
        position = bisect_left(starts, low[i])
        if position and spans[starts[position - 1]][0] > low[i]:
            position -= 1
        covered = position
        while covered < len(starts) and starts[covered] < high[i]:
            covered += 1
        old = [(start, *spans.pop(start)) for start in starts[position:covered]]
        del starts[position:covered]
        for start, stop, j in old:
            if end[j] >= begin[i]:
                return Sharing((j, i), order[:0], order[:0])
            before.append(j)
            after.append(i)
            for left, right in ((start, min(stop, low[i])), (max(start, high[i]), stop)):
                if left < right:
                    insort(starts, left)
                    spans[left] = right, j
        insort(starts, low[i])
        spans[low[i]] = high[i], i
    return Sharing(None, np.array(before, np.int64), np.array(after, np.int64))
