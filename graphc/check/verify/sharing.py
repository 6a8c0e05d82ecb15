"""Rules about bytes that pass from one value to another: live ranges, in-place results, threads.

Three things are proved of any two values that share a byte.

Time.  The later one is written after the last read of the earlier one.

Place.  If one step does both, it reads each element just before it writes that element: load and
store are at the same addresses in the same order, and its other reads are at other addresses.

Threads.  Within an epoch threads run ahead of each other, so order alone proves nothing.  All
accesses of a byte in one epoch, if one of them writes, must be by the same thread.  Then each
thread's own order is the order of all that happens to the byte, and a run by any number of threads
is a run by one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np

from graphc.check.certificate import Ints, Pattern, Use
from graphc.check.verify.facts import (
    Bools,
    Counterexample,
    Facts,
    size_at,
    sorted_unique,
    stable_order,
)
from graphc.check.verify.threads import WAYS, Threads

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
    """The result of `sharing`: two rectangles that overlap, or all successive pairs."""

    conflict: tuple[int, int] | None
    before: Ints
    after: Ints
    """With `before`, all pairs of rectangles where one takes over some byte from the other, each
    once for each cell."""


def sharing(r: Rectangles) -> Sharing:
    """Compare rectangles; empty ones touch nothing.  Of several conflicts return the earliest.

    Addresses are cut at all edges of rectangles.  In each cell between two cuts the rectangles that
    cover it must follow each other in time, so it is enough to compare neighbours.  That takes
    O(k log k) for k pairs of rectangle and cell; if rectangles cover more than `DENSE` cells each
    on average, a sweep over time with the live rectangles in order of addresses takes O(n log n).
    """
    order = np.flatnonzero(r.low < r.high)
    order = order[np.lexsort((r.end[order], r.start[order]))]
    if not len(order):
        return Sharing(None, order, order)
    cuts = sorted_unique(np.concatenate((r.low[order], r.high[order])))
    first = np.searchsorted(cuts, r.low[order])
    cells = np.searchsorted(cuts, r.high[order]) - first
    if int(cells.sum()) > DENSE * len(order):
        return _swept(r, order)
    owner = np.repeat(np.arange(len(order)), cells)
    inside = np.arange(len(owner)) - np.repeat(np.cumsum(cells) - cells, cells)
    cell = first[owner] + inside
    by_cell = stable_order(cell)  # within a cell they stay in order of time
    owner, cell = owner[by_cell], cell[by_cell]
    same = np.flatnonzero(cell[1:] == cell[:-1])
    before, after = order[owner[same]], order[owner[same + 1]]
    overlapping = np.flatnonzero(r.end[before] >= r.start[after])
    if len(overlapping):
        worst = overlapping[np.argmin(r.start[after[overlapping]])]
        return Sharing((int(before[worst]), int(after[worst])), before[:0], after[:0])
    return Sharing(None, before, after)


def _swept(r: Rectangles, order: Ints) -> Sharing:
    """Compare rectangles, as `sharing` does, by a sweep over time.

    Bytes keep the number of the rectangle that had them last, as ranges in order of addresses; a
    new rectangle replaces the ranges that it covers.  Each adds at most three.
    """
    starts: list[int] = []
    ranges: dict[int, tuple[int, int]] = {}  # start -> end, rectangle
    before: list[int] = []
    after: list[int] = []
    low, high = r.low.tolist(), r.high.tolist()
    begin, end = r.start.tolist(), r.end.tolist()
    for i in order.tolist():
        position = bisect_left(starts, low[i])
        if position and ranges[starts[position - 1]][0] > low[i]:
            position -= 1
        covered = position
        while covered < len(starts) and starts[covered] < high[i]:
            covered += 1
        old = [(start, *ranges.pop(start)) for start in starts[position:covered]]
        del starts[position:covered]
        for start, stop, j in old:
            if end[j] >= begin[i]:
                return Sharing((j, i), order[:0], order[:0])
            before.append(j)
            after.append(i)
            for left, right in ((start, min(stop, low[i])), (max(start, high[i]), stop)):
                if left < right:
                    insort(starts, left)
                    ranges[left] = right, j
        insort(starts, low[i])
        ranges[low[i]] = high[i], i
    return Sharing(None, np.array(before, np.int64), np.array(after, np.int64))


# ------------------------------------------------------------------ what values may share

LIVE = "no write touches a live buffer"
PLACE = "a result takes the place of an operand element by element"
THREADS = "between barriers a byte is one thread's"


class Neighbours:
    """The pairs of values that have a byte one after the other."""

    def __init__(self, f: Facts) -> None:
        self.f, self.threads = f, Threads(f)
        self.start, self.end = f.live_range
        self.used = np.flatnonzero(self.start <= self.end)
        low, high = f.low[self.used], f.high[self.used]
        rectangles = Rectangles(low, high, self.start[self.used], self.end[self.used])
        self.sharing: Sharing = sharing(rectangles)

    @cached_property
    def pairs(self) -> tuple[Ints, Ints]:
        """Each earlier and later value that share bytes, once."""
        count = len(self.f.buffers.root)
        before, after = self.used[self.sharing.before], self.used[self.sharing.after]
        both = sorted_unique(before * count + after)
        return both // count, both % count

    @cached_property
    def writer(self) -> Ints:
        """For each value, the access that writes it first; -1 if none does."""
        a = self.f.accesses
        found = np.full(len(self.f.buffers.root), -1)
        made = np.flatnonzero(a.use == Use.WRITE)[::-1]
        found[self.f.value[made]] = made
        return found

    @cached_property
    def _by_value(self) -> tuple[Ints, Ints]:
        """The accesses in order of their values, and the start of each value's."""
        order = stable_order(self.f.value)
        count = np.bincount(self.f.value, minlength=len(self.f.buffers.root))
        return order, np.append(0, np.cumsum(count))

    def accesses_of(self, values: Ints) -> tuple[Ints, Ints]:
        """Return all accesses of each of some values, as positions in `values` and accesses."""
        order, starts = self._by_value
        count = starts[values + 1] - starts[values]
        position = np.repeat(np.arange(len(values)), count)
        inside = np.arange(len(position)) - np.repeat(np.cumsum(count) - count, count)
        return position, order[starts[values][position] + inside]


def live(near: Neighbours) -> Iterator[Counterexample]:
    """Yield two values that share bytes and are needed at the same time."""
    f = near.f
    if near.sharing.conflict is None:
        return
    old, new = (int(near.used[i]) for i in near.sharing.conflict)
    step, reader = max(int(near.start[new]), 0) // 2, int(near.end[old]) // 2
    share = f"{f.shared(old, new)} {f.epoch_text(step)}"
    if near.start[new] < 0:
        yield Counterexample(
            LIVE,
            f"{f.buffer_text(old)} and {f.buffer_text(new)} are both there from the start",
            (share,),
        )
        return
    if reader == step:
        sentence = f"{f.step_text(step)} needs both {f.buffer_text(old)} and {f.buffer_text(new)}"
        yield Counterexample(LIVE, sentence, (share,))
        return
    start = int(near.start[old])
    made = f"written by {f.step_text(start // 2)}" if start >= 0 else "there from the start"
    needed = "needed at the end" if reader >= f.end else f"read by {f.step_text(reader)}"
    yield Counterexample(
        LIVE,
        f"{f.step_text(step)} writes {f.buffer_text(new)} over {f.buffer_text(old)}",
        (f"that is {made}, and {needed}", share),
    )


def in_place(near: Neighbours) -> Iterator[Counterexample]:
    """Yield steps that write over an operand, but not element by element."""
    f, a = near.f, near.f.accesses
    before, after = near.pairs
    step = near.start[after] // 2
    same = (near.end[before] // 2 == step) & (near.start[after] >= 0)
    before, after, step = before[same], after[same], step[same]
    position, access = near.accesses_of(before)
    here = (a.step[access] == step[position]) & (a.use[access] == Use.READ)
    position, access = position[here], access[here]
    writer = near.writer[after[position]]
    good = (a.in_place[access] == 1) & near.threads.same_element(access, writer)
    for i, j in zip(access[~good].tolist(), writer[~good].tolist(), strict=True):
        old, new = int(a.buffer[i]), int(a.buffer[j])
        yield Counterexample(
            PLACE,
            f"{f.step_of(j)} writes {f.buffer_text(new)} over {f.buffer_text(old)}, which it reads",
            (f"it reads {_how(f, i)} and writes {_how(f, j)}", f.shared(old, new)),
        )


def _how(f: Facts, access: int) -> str:
    pattern = int(f.accesses.pattern[access])
    return "it as a whole" if pattern == Pattern.WHOLE else f"{Pattern(pattern).word!r}"


def epochs(near: Neighbours) -> Iterator[Counterexample]:
    """Yield races: bytes that two threads touch in one epoch, of which one writes."""
    for written, other in chain(_within_values(near), _between_values(near)):
        yield _race(near, written, other)


def _within_values(near: Neighbours) -> Iterator[tuple[int, int]]:
    """Yield races on values written and read in one epoch, or written in parts by several steps.

    They are two accesses, of which the first writes.
    """
    f, threads = near.f, near.threads
    a, epoch = f.accesses, f.epochs[f.accesses.step]
    count = np.bincount(f.value[f.writes], minlength=len(f.buffers.root))
    writer = near.writer[f.value]
    once = (count[f.value] == 1) & (epoch == epoch[writer]) & (a.use == Use.READ)
    read = np.flatnonzero(once)
    for i in read[~threads.agree(read, writer[read])].tolist():
        yield int(writer[i]), i
    for v in np.flatnonzero(count > 1).tolist():
        touched = near.accesses_of(np.array([v]))[1]
        made = touched[a.use[touched] == Use.WRITE]
        i, j = np.repeat(touched, len(made)), np.tile(made, len(touched))
        met = (i != j) & (epoch[i] == epoch[j]) & ~_apart(f, i, j)
        i, j = i[met], j[met]
        for k in np.flatnonzero(~threads.agree(i, j)).tolist():
            yield int(j[k]), int(i[k])


def _apart(f: Facts, i: Ints, j: Ints) -> Bools:
    """Return whether accesses are of different columns of one matrix."""
    b, buffers = f.buffers, f.accesses.buffer
    x, y = buffers[i], buffers[j]
    columns = size_at(b.columns, f.capacity)
    one = (b.pitch[x] > 0) & (b.pitch[x] == b.pitch[y])
    before = b.shift[x] + columns[x] <= b.shift[y]
    return np.asarray(one & (before | (b.shift[y] + columns[y] <= b.shift[x])))


def _between_values(near: Neighbours) -> Iterator[tuple[int, int]]:
    """Yield races on bytes that pass from one value to another within an epoch."""
    f = near.f
    epoch = f.epochs[f.accesses.step]
    before, after = near.pairs
    last = f.epochs[np.clip(near.end[before] // 2, 0, f.end)]
    same = (last == f.epochs[np.maximum(near.start[after], 0) // 2]) & (near.end[before] >= 0)
    before, after, last = before[same], after[same], last[same]
    for values in (before, after):
        position, access = near.accesses_of(values)
        here = epoch[access] == last[position]
        position, access = position[here], access[here]
        successor = near.writer[after[position]]
        for k in np.flatnonzero(~near.threads.agree(access, successor)).tolist():
            yield int(successor[k]), int(access[k])


def _race(near: Neighbours, write: int, other: int) -> Counterexample:
    """Return the counterexample of two accesses of a byte in one epoch; the first writes."""
    f, threads = near.f, near.threads
    a = f.accesses
    new, old = int(a.buffer[write]), int(a.buffer[other])
    first, second = int(a.step[write]), int(a.step[other])
    does = "reads" if a.use[other] == Use.READ else "writes"
    details = [
        f"{f.step_text(first)}, {f.partition_text(first)}: {WAYS[threads.way[write]]}",
        f"{f.step_text(second)}, {f.partition_text(second)}: {WAYS[threads.way[other]]}",
        f"{f.shared(new, old)} {f.epoch_text(first)}; no barrier is between them",
    ]
    found = threads.example(write, other)
    if found is not None:
        count, address, one, two = found
        block = int(f.buffers.block[new])
        byte = f"byte {address - int(f.base[block]):,}"
        details.append(f"of {count} threads, {one} writes {byte} and {two} {does} it")
    return Counterexample(
        THREADS,
        f"{f.step_text(first)} writes {f.buffer_text(new)} while {f.step_text(second)} {does} "
        f"{f.buffer_text(old)}",
        tuple(details),
    )
