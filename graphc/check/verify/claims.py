"""Rules about the claims of the planner, and about the exchange between shards."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphc.check.certificate import Certificate, Ints, Kind, Places, ProgramTables, Space, Use
from graphc.check.verify.facts import ALIGNMENT, Counterexample, Facts, aligned, size_at
from graphc.check.verify.sharing import Rectangles, sharing

LIVES = "the live range of a buffer is as reported"
SLOTS = "slots hold their buffers and share nothing at one time"
SIZES = "the arena is as large as reported"
TOTALS = "the memory report adds up"
SMALL = 4096
"""The most bytes of a bucket that ranks exchange whole, not by halves."""


def lives(f: Facts) -> Iterator[Counterexample]:
    """Yield values in the arena whose first or last use differs from the planner's claim."""
    b = f.buffers
    mine = np.flatnonzero((f.space == Space.ARENA) & (b.root == np.arange(len(b.root))))
    start, end = f.live_range
    first = f.epochs[np.clip(start[mine] // 2, 0, f.end)]
    last = f.epochs[np.clip(end[mine] // 2, 0, f.end)]
    used = start[mine] <= end[mine]
    bad = used & ((b.first[mine] != first) | (b.last[mine] != last))
    for k in np.flatnonzero(bad).tolist():
        i = int(mine[k])
        yield Counterexample(
            LIVES,
            f"{f.buffer_text(i)} is reported as live in epochs {b.first[i]}..{b.last[i]}",
            (f"it is used in epochs {first[k]}..{last[k]}",),
        )


def slots(f: Facts) -> Iterator[Counterexample]:
    """Yield buffers outside their arena slot, in bytes or in time, and slots that overlap."""
    b, s = f.buffers, f.slots
    mine = np.flatnonzero((f.space == Space.ARENA) & (b.first <= b.last))
    slot = b.slot[mine]
    low = (f.low - f.base[b.block])[mine]
    size = size_at(s.size, f.capacity)
    fits = (low >= s.offset[slot]) & (low + f.extent[mine] <= s.offset[slot] + size[slot])
    fits &= (b.first[mine] >= s.first[slot]) & (b.last[mine] <= s.last[slot])
    for k in np.flatnonzero(~fits).tolist():
        j = int(slot[k])
        yield Counterexample(
            SLOTS,
            f"{f.buffer_text(int(mine[k]))} is not in its slot {s.names[j]!r}",
            (
                f"that has bytes {s.offset[j]:,}..{s.offset[j] + size[j]:,} "
                f"from {s.first[j]} to {s.last[j]}",
            ),
        )
    found = sharing(Rectangles(s.offset, s.offset + aligned(size), s.first, s.last)).conflict
    if found is not None:
        i, j = found
        yield Counterexample(
            SLOTS,
            f"slots {s.names[i]!r} and {s.names[j]!r} have the same bytes at the same time",
            (f"{s.first[i]}..{s.last[i]} and {s.first[j]}..{s.last[j]}",),
        )


def arena(f: Facts) -> Iterator[Counterexample]:
    """Yield a wrong arena (it ends with its last slot) or peak (the most that is live at once)."""
    s, t = f.slots, f.tables
    size = aligned(size_at(s.size, f.capacity))
    end = int(np.max(s.offset + size, initial=0))
    if end != t.arena:
        yield Counterexample(
            SIZES, f"it is reported as {t.arena:,} bytes", (f"slots end at {end:,}",)
        )
    when = np.concatenate((s.last + 1, s.first))  # at equal times, ends come first
    change = np.concatenate((-size, size))[np.argsort(when, kind="stable")]
    peak = int(np.max(np.cumsum(change), initial=0))
    if peak != t.peak:
        yield Counterexample(
            SIZES,
            f"the peak is reported as {t.peak:,} bytes",
            (f"the slots that are live at once have {peak:,}",),
        )


def report(c: Certificate) -> Iterator[Counterexample]:
    """Yield wrong parts of the memory report, state layouts, and sizes of the threads' scratch."""
    m = c.memory
    threads = int(max((int(p.steps.scratch.max(initial=0)) for p in c.programs), default=0))
    if threads > m.scratch_thread or m.scratch_thread % ALIGNMENT:
        yield Counterexample(
            TOTALS,
            f"each thread has {m.scratch_thread:,} bytes of scratch",
            (f"a step needs {threads:,}, in units of {ALIGNMENT}",),
        )
    yield from _layout(c)
    parts = _parts(c)
    for name, size in parts.items():
        padding = ALIGNMENT if size and name != "exchange" else 0
        claimed, found = getattr(m, name), size + padding
        if claimed != found:
            text = f"{name} is reported as {claimed:,} bytes, it has {found:,}"
            yield Counterexample(TOTALS, text)
    total = sum(int(getattr(m, name)) for name in parts)
    if total != m.total:
        yield Counterexample(TOTALS, f"the total is reported as {m.total:,} bytes, it is {total:,}")


def _parts(c: Certificate) -> dict[str, int]:
    """Return the bytes of each part of the memory, without the padding of its block."""
    m = c.memory
    return {
        "state": sum(aligned(size) for _, size in c.state_layout.values()),
        "feeds": _region(c, "feed"),
        "results": _results(c),
        "constants": _region(c, "constant"),
        "arena": _arenas(c),
        "scratch": m.scratch_thread * m.threads,
        "exchange": (m.workspaces - 1) * (m.arena + m.scratch + m.feeds + m.results + m.constants)
        + max((_exchange(p, m.lanes, m.ranks) for p in c.programs), default=0),
        "gradients": max(
            (int(size_at(p.blocks.size, p.capacity)[1]) for p in c.programs if p.name == "grad"),
            default=0,
        ),
    }


def _layout(c: Certificate) -> Iterator[Counterexample]:
    """Yield states that overlap, or start unaligned, in their block, or that have another size."""
    yield from apart(c.state_layout, "state", TOTALS)
    held = {
        (p.blocks.names[i], int(p.blocks.size[i, 0]))
        for p in c.programs
        for i in np.flatnonzero(p.blocks.space == Space.STATE).tolist()
    }
    for name, size in sorted(held):
        if c.state_layout.get(name, (0, -1))[1] != size:
            yield Counterexample(TOTALS, f"state {name!r} is used as {size:,} bytes, it has others")


def apart(places: Places, what: str, rule: str) -> Iterator[Counterexample]:
    """Yield arrays of one block that overlap, or start unaligned."""
    end, before = 0, ""
    for name, (offset, size) in sorted(places.items(), key=lambda item: item[1]):
        if offset % ALIGNMENT:
            yield Counterexample(rule, f"{what} {name!r} starts at byte {offset:,}")
        if offset < end:
            yield Counterexample(rule, f"{what}s {before!r} and {name!r} share bytes")
        end, before = offset + size, name


def _region(c: Certificate, space: str) -> int:
    """Return the bytes of all feeds, or of the constants of each program by itself."""
    found: dict[str, int] = {}
    rows = max((p.capacity for p in c.programs), default=1)
    for p in c.programs:
        b = p.blocks
        sizes: Ints = size_at(b.size, rows)
        for i in np.flatnonzero(b.space == Space.of(space)).tolist():
            name = b.names[i] if space == "feed" else f"{p.name}:{b.names[i]}"
            if not (space == "feed" and name.startswith("gradient:")):
                found[name] = aligned(int(sizes[i]))
    return sum(found.values())


def _arenas(c: Certificate) -> int:
    """Return the bytes of one arena, or if so many are claimed, of one for each thread.

    There may be that many if there are enough blocks of rows for each thread to take some.
    """
    threads = c.memory.threads
    one = max((p.arena for p in c.programs), default=0)
    shared = (p.arena * threads for p in c.programs if c.batch // p.capacity >= threads)
    several = max(one, *shared, 0)
    return several if c.memory.arena > several else one


def _results(c: Certificate) -> int:
    """Return the bytes of the outputs of a whole batch, of inference that runs it in blocks."""
    found = 0
    for p in c.programs:
        if p.name == "infer" and p.capacity < c.batch:
            outputs = p.outputs.buffer
            sizes = size_at(Facts(p).elements[outputs], c.batch) * p.buffers.item[outputs]
            found += int(aligned(sizes).sum())
    return found


def _exchange(p: ProgramTables, lanes: int, ranks: int) -> int:
    """Return the bytes for sums of earlier shards, and for one sum from another rank."""
    f, total = Facts(p), 0
    tree = ranks > 1 and ranks & (ranks - 1) == 0
    for step in np.flatnonzero(p.steps.kind == Kind.SEND).tolist():
        sent = f.value[(p.accesses.step == step) & (p.accesses.use == Use.WRITE)]
        size, item = int(f.high[sent].max() - f.low[sent].min()), int(p.buffers.item[sent[0]])
        half = size if size <= SMALL else size - size // item // 2 * item
        total += size * (lanes - 1).bit_length() + half * tree
    return total


# ------------------------------------------------------------------ between shards

EXCHANGE = "data that is exchanged is left alone until it has arrived"
MEETINGS = "shards await their sums in one order"
EARLIER = "shard"
"""The program of the shards before the last of a rank."""


def exchange(f: Facts) -> Iterator[Counterexample]:
    """Yield buckets that are not one piece, are not awaited once, or are touched before arrival."""
    sends = np.flatnonzero(f.steps.kind == Kind.SEND).tolist()
    awaited = {
        i: _values(f, i, Use.READ) for i in np.flatnonzero(f.steps.kind == Kind.RECEIVE).tolist()
    }
    for step in [*sends, *awaited]:
        yield from _in_place(f, step)
    for send in sends:
        sent = _values(f, send, Use.WRITE)
        yield from _in_one_piece(f, send, sent)
        arrivals = [i for i, values in awaited.items() if np.isin(values, sent).any()]
        if awaited and [awaited.pop(i).tolist() for i in arrivals] != [sent.tolist()]:
            yield Counterexample(
                EXCHANGE, f"{f.step_text(send)} sends data that no step awaits once and as a whole"
            )
            return
        end = arrivals[0] if arrivals else f.end
        yield from _left_alone(f, send, end, sent)
    for step in awaited:
        yield Counterexample(EXCHANGE, f"{f.step_text(step)} awaits data that no step sends")


def meetings(c: Certificate) -> Iterator[Counterexample]:
    """Yield programs that await sums in another order than the program `EARLIER`.

    Shards wait for each other at each sum, so two orders would be a deadlock.
    """
    orders = {p.name: _awaited(p) for p in c.programs}
    wanted = orders.pop(EARLIER, [])
    for name, order in orders.items():
        common = [each for each in order if each in wanted]
        if order and common != wanted:
            i = next(
                (i for i, (a, b) in enumerate(zip(common, wanted, strict=False)) if a != b), -1
            )
            here = (
                f"program {name!r} awaits {common[i]!r}"
                if common
                else f"program {name!r} awaits none"
            )
            yield Counterexample(MEETINGS, f"{here} where {EARLIER!r} awaits {wanted[i]!r}")


def _awaited(p: ProgramTables) -> list[str]:
    """Return the first value of each sum that a program awaits, in its order."""
    a = p.accesses
    steps = np.flatnonzero(p.steps.kind == Kind.RECEIVE).tolist()
    firsts = [a.buffer[(a.step == step) & (a.use == Use.WRITE)][0] for step in steps]
    return [p.buffers.names[first] for first in firsts]


def _values(f: Facts, step: int, use: int) -> Ints:
    """Return the values that a step reads or writes, in its order."""
    a = f.accesses
    return np.asarray(f.value[(a.step == step) & (a.use == use)])


def _in_place(f: Facts, step: int) -> Iterator[Counterexample]:
    """Yield a step whose results are not at its operands: the exchange must not move values."""
    read, written = _values(f, step, Use.READ), _values(f, step, Use.WRITE)
    same = len(read) == len(written) and all(
        (table[read] == table[written]).all() for table in (f.low, f.high)
    )
    if not same:
        yield Counterexample(
            EXCHANGE, f"{f.step_text(step)} does not leave its results where its operands are"
        )


def _in_one_piece(f: Facts, send: int, sent: Ints) -> Iterator[Counterexample]:
    """Yield a send whose values do not follow each other at multiples of 64 bytes in the arena."""
    low, high = f.low[sent], f.high[sent]
    ends = aligned(high - f.base[0]) + f.base[0]
    good = bool((f.space[sent] == Space.ARENA).all() and (ends[:-1] == low[1:]).all())
    if not good or (f.buffers.item[sent] != f.buffers.item[sent[0]]).any():
        yield Counterexample(
            EXCHANGE, f"{f.step_text(send)} sends values that are not in one piece"
        )


def _left_alone(f: Facts, send: int, end: int, sent: Ints) -> Iterator[Counterexample]:
    """Yield steps that touch the bytes between send and arrival, and values that live there."""
    a = f.accesses
    low, high = f.low[sent].min(), f.high[sent].max()
    between = (a.step > send) & (a.step < end)
    value = f.value[between]
    touched = (f.low[value] < high) & (f.high[value] > low)
    for i in np.flatnonzero(between)[touched].tolist():
        yield Counterexample(
            EXCHANGE,
            f"{f.step_of(i)} touches {f.buffer_of(i)} between "
            f"{f.step_text(send)} and {f.step_text(end)}",
        )
    start, last = f.live_range
    alive = (start <= 2 * send) & (last > 2 * send) & (f.low < high) & (f.high > low)
    alive[sent] = False
    for v in np.flatnonzero(alive & (start <= last)).tolist():
        yield Counterexample(
            EXCHANGE, f"{f.buffer_text(v)} is needed while {f.step_text(send)} is not received"
        )
