"""The check of bytes that pass from one value to another: live ranges, in-place results, threads.

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

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from graphc.check.certificate.tables import READ, SPANS, WHOLE, WRITE, Ints
from graphc.check.verify.facts import Bools, Facts, at, distinct, ordering
from graphc.check.verify.overlap import Rectangles, Sharing, sharing
from graphc.check.verify.report import Counterexample
from graphc.check.verify.threads import WAYS, Threads
from graphc.check.verify.words import Words

LIVE = "no write touches a live buffer"
PLACE = "a result takes the place of an operand element by element"
THREADS = "between barriers a byte is one thread's"


class Neighbours:
    """The values in the order in which they have bytes."""

    def __init__(self, f: Facts) -> None:
        self.f = f
        self.start, self.end = f.life
        self.used = np.flatnonzero(self.start <= self.end)
        low, high = f.low[self.used], f.high[self.used]
        rectangles = Rectangles(low, high, self.start[self.used], self.end[self.used])
        self.sharing: Sharing = sharing(rectangles)

    @cached_property
    def pairs(self) -> tuple[Ints, Ints]:
        """Each earlier and later value that share bytes, once."""
        count = len(self.f.buffers.root)
        before, after = self.used[self.sharing.before], self.used[self.sharing.after]
        both = distinct(before * count + after)
        return both // count, both % count

    @cached_property
    def writer(self) -> Ints:
        """For each value, the access that writes it first; -1 if none does."""
        a = self.f.accesses
        found = np.full(len(self.f.buffers.root), -1)
        made = np.flatnonzero(a.use != READ)[::-1]
        found[self.f.value[made]] = made
        return found

    @cached_property
    def _by_value(self) -> tuple[Ints, Ints]:
        """The accesses in order of their values, and the start of each value's."""
        order = ordering(self.f.value)
        count = np.bincount(self.f.value, minlength=len(self.f.buffers.root))
        return order, np.append(0, np.cumsum(count))

    def accesses_of(self, values: Ints) -> tuple[Ints, Ints]:
        """Return all accesses of each of some values, as positions in `values` and accesses."""
        order, starts = self._by_value
        count = starts[values + 1] - starts[values]
        position = np.repeat(np.arange(len(values)), count)
        inside = np.arange(len(position)) - np.repeat(np.cumsum(count) - count, count)
        return position, order[starts[values][position] + inside]


def live(f: Facts, near: Neighbours) -> Iterator[Counterexample]:
    """Yield two values that share bytes and are needed at the same time."""
    if near.sharing.conflict is None:
        return
    words = Words(f)
    old, new = (int(near.used[i]) for i in near.sharing.conflict)
    step, reader = max(int(near.start[new]), 0) // 2, int(near.end[old]) // 2
    share = f"they share {words.bytes(old, new)}{words.epoch(step)}"
    if near.start[new] < 0:
        yield Counterexample(
            LIVE,
            f"{words.buffer(old)} and {words.buffer(new)} are both there from the start",
            (share,),
        )
        return
    if reader == step:
        sentence = f"{words.step(step)} needs both {words.buffer(old)} and {words.buffer(new)}"
        yield Counterexample(LIVE, sentence, (share,))
        return
    start = int(near.start[old])
    made = f"written by {words.step(start // 2)}" if start >= 0 else "there from the start"
    needed = "needed at the end" if reader >= f.end else f"read by {words.step(reader)}"
    yield Counterexample(
        LIVE,
        f"{words.step(step)} writes {words.buffer(new)} over {words.buffer(old)}",
        (f"that is {made}, and {needed}", share),
    )


def in_place(f: Facts, near: Neighbours, threads: Threads) -> Iterator[Counterexample]:
    """Yield steps that write over an operand other than element by element."""
    a, words = f.accesses, Words(f)
    before, after = near.pairs
    step = near.start[after] // 2
    same = (near.end[before] // 2 == step) & (near.start[after] >= 0)
    before, after, step = before[same], after[same], step[same]
    position, access = near.accesses_of(before)
    here = (a.step[access] == step[position]) & (a.use[access] != WRITE)
    position, access = position[here], access[here]
    writer = near.writer[after[position]]
    good = (a.in_place[access] == 1) & threads.same_element(access, writer)
    for i, j in zip(access[~good].tolist(), writer[~good].tolist(), strict=True):
        old, new = int(a.buffer[i]), int(a.buffer[j])
        yield Counterexample(
            PLACE,
            f"{words.step(int(a.step[j]))} writes {words.buffer(new)} over "
            f"{words.buffer(old)}, which it reads",
            (
                f"it reads {_how(f, i)} and writes {_how(f, j)}",
                f"they share {words.bytes(old, new)}",
            ),
        )


def _how(f: Facts, access: int) -> str:
    span = int(f.accesses.span[access])
    return "it as a whole" if span == WHOLE else f"{SPANS[span]!r}"


def epochs(f: Facts, near: Neighbours, threads: Threads) -> Iterator[Counterexample]:
    """Yield bytes that different threads touch in one epoch, where one of them writes."""
    yield from _within_values(f, near, threads)
    yield from _between_values(f, near, threads)


def _within_values(f: Facts, near: Neighbours, threads: Threads) -> Iterator[Counterexample]:
    """Yield races on values written and read in one epoch, or written in parts by several steps."""
    a, epoch = f.accesses, f.epochs[f.accesses.step]
    count = np.bincount(f.value[f.writes], minlength=len(f.buffers.root))
    writer = near.writer[f.value]
    once = (count[f.value] == 1) & (epoch == epoch[writer]) & (a.use == READ)
    read = np.flatnonzero(once)
    for i in read[~threads.agree(read, writer[read])].tolist():
        yield _race(f, threads, int(writer[i]), i)
    for v in np.flatnonzero(count > 1).tolist():
        touched = near.accesses_of(np.array([v]))[1]
        made = touched[a.use[touched] != READ]
        i, j = np.repeat(touched, len(made)), np.tile(made, len(touched))
        met = (i != j) & (epoch[i] == epoch[j]) & ~_apart(f, i, j)
        i, j = i[met], j[met]
        for k in np.flatnonzero(~threads.agree(i, j)).tolist():
            yield _race(f, threads, int(j[k]), int(i[k]))


def _apart(f: Facts, i: Ints, j: Ints) -> Bools:
    """Return whether accesses are of different columns of one matrix."""
    b, buffers = f.buffers, f.accesses.buffer
    x, y = buffers[i], buffers[j]
    columns = at(b.columns, f.capacity)
    one = (b.pitch[x] > 0) & (b.pitch[x] == b.pitch[y])
    before = b.shift[x] + columns[x] <= b.shift[y]
    return np.asarray(one & (before | (b.shift[y] + columns[y] <= b.shift[x])))


def _between_values(f: Facts, near: Neighbours, threads: Threads) -> Iterator[Counterexample]:
    """Yield races on bytes that pass from one value to another within an epoch."""
    epoch = f.epochs[f.accesses.step]
    before, after = near.pairs
    last = f.epochs[np.clip(near.end[before] // 2, 0, f.end)]
    same = (last == f.epochs[np.maximum(near.start[after], 0) // 2]) & (near.end[before] >= 0)
    before, after, last = before[same], after[same], last[same]
    for values in (before, after):
        position, access = near.accesses_of(values)
        here = epoch[access] == last[position]
        position, access = position[here], access[here]
        taker = near.writer[after[position]]
        bad = np.flatnonzero(~threads.agree(access, taker))
        for k in bad.tolist():
            yield _race(f, threads, int(taker[k]), int(access[k]))


def _race(f: Facts, threads: Threads, write: int, other: int) -> Counterexample:
    """Return the counterexample of two accesses of a byte in one epoch; the first writes."""
    a, words = f.accesses, Words(f)
    new, old = int(a.buffer[write]), int(a.buffer[other])
    first, second = int(a.step[write]), int(a.step[other])
    does = "reads" if a.use[other] == READ else "writes"
    details = [
        f"{words.step(first)}, {words.split(first)}: {WAYS[threads.way[write]]}",
        f"{words.step(second)}, {words.split(second)}: {WAYS[threads.way[other]]}",
        f"they share {words.bytes(new, old)}{words.epoch(first)}; no barrier is between them",
    ]
    found = threads.example(write, other)
    if found is not None:
        count, address, one, two = found
        block = int(f.buffers.block[new])
        byte = f"byte {address - int(f.base[block]):,}"
        details.append(f"of {count} threads, {one} writes {byte} and {two} {does} it")
    return Counterexample(
        THREADS,
        f"{words.step(first)} writes {words.buffer(new)} while {words.step(second)} {does} "
        f"{words.buffer(old)}",
        tuple(details),
    )
