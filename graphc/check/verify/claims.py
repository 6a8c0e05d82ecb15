"""The check that the planner's live ranges, slots and sizes agree with those found."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphc.check.certificate.tables import SEND, SPACES, WRITE, Certificate, Ints, ProgramTables
from graphc.check.verify.facts import ALIGNMENT, ARENA, Facts, aligned, at
from graphc.check.verify.overlap import Rectangles, sharing
from graphc.check.verify.report import Counterexample
from graphc.check.verify.words import Words

LIVES = "the life of a buffer is as told"
SLOTS = "slots hold their buffers and share nothing at one time"
SIZES = "the arena is as large as told"
TOTALS = "the memory report adds up"
SMALL = 4096
"""The most bytes of a bucket that ranks exchange whole, not by halves."""


def lives(f: Facts) -> Iterator[Counterexample]:
    """Yield values in the arena whose first or last use differs from the planner's claim."""
    b, words = f.buffers, Words(f)
    mine = np.flatnonzero((f.space == ARENA) & (b.root == np.arange(len(b.root))))
    start, end = f.life
    first = f.epochs[np.clip(start[mine] // 2, 0, f.end)]
    last = f.epochs[np.clip(end[mine] // 2, 0, f.end)]
    used = start[mine] <= end[mine]
    bad = used & ((b.first[mine] != first) | (b.last[mine] != last))
    for k in np.flatnonzero(bad).tolist():
        i = int(mine[k])
        yield Counterexample(
            LIVES,
            f"{words.buffer(i)} is said to live in epochs {b.first[i]}..{b.last[i]}",
            (f"it is used in epochs {first[k]}..{last[k]}",),
        )


def slots(f: Facts) -> Iterator[Counterexample]:
    """Yield buffers outside their arena slot, in bytes or in time, and slots that overlap."""
    b, s, words = f.buffers, f.slots, Words(f)
    mine = np.flatnonzero((f.space == ARENA) & (b.first <= b.last))
    slot = b.slot[mine]
    low = b.offset[mine] + b.shift[mine] * b.item[mine]
    size = at(s.size, f.capacity)
    fits = (low >= s.offset[slot]) & (low + f.span[mine] <= s.offset[slot] + size[slot])
    fits &= (b.first[mine] >= s.first[slot]) & (b.last[mine] <= s.last[slot])
    for k in np.flatnonzero(~fits).tolist():
        j = int(slot[k])
        yield Counterexample(
            SLOTS,
            f"{words.buffer(int(mine[k]))} is not in its slot {s.names[j]!r}",
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
    """Yield a wrong size of the arena, or a wrong peak.

    The arena ends with its last slot, and its peak is the most that is live at once.
    """
    s, t = f.slots, f.tables
    size = aligned(at(s.size, f.capacity))
    end = int(np.max(s.offset + size, initial=0))
    if end != t.arena:
        yield Counterexample(
            SIZES, f"it is said to have {t.arena:,} bytes", (f"slots end at {end:,}",)
        )
    when = np.concatenate((s.last + 1, s.first))  # at equal times, ends come first
    change = np.concatenate((-size, size))[np.argsort(when, kind="stable")]
    peak = int(np.max(np.cumsum(change), initial=0))
    if peak != t.peak:
        yield Counterexample(
            SIZES, f"{t.peak:,} bytes are said to live at once", (f"the slots say {peak:,}",)
        )


def report(c: Certificate) -> Iterator[Counterexample]:
    """Yield wrong parts of the memory report, state layouts, and sizes of the threads' scratch."""
    m = c.memory
    threads = int(max((int(p.steps.scratch.max(initial=0)) for p in c.programs), default=0))
    if threads > m.scratch_thread or m.scratch_thread % ALIGNMENT:
        yield Counterexample(
            TOTALS,
            f"each thread has {m.scratch_thread:,} bytes of scratch",
            (f"a product needs {threads:,}, in units of {ALIGNMENT}",),
        )
    yield from _layout(c)
    parts = {
        "state": sum(_up(size) for _, size in c.state_layout.values()),
        "feeds": _region(c, "feed"),
        "constants": _region(c, "constant"),
        "arena": max((p.arena for p in c.programs), default=0),
        "scratch": m.scratch_thread * m.threads,
        "exchange": max((_exchange(p, m.lanes, m.ranks) for p in c.programs), default=0),
        "gradients": max((_gradients(p) for p in c.programs if p.name == "grad"), default=0),
    }
    more = (m.workspaces - 1) * (m.arena + m.scratch + m.feeds + m.constants)
    parts["exchange"] += more
    for name, size in parts.items():
        padding = ALIGNMENT if size and name != "exchange" else 0
        told, found = getattr(m, name), size + padding
        if told != found:
            yield Counterexample(TOTALS, f"{name} is said to be {told:,} bytes, it is {found:,}")
    total = sum(int(getattr(m, name)) for name in parts)
    if total != m.total:
        yield Counterexample(TOTALS, f"the total is said to be {m.total:,} bytes, it is {total:,}")


def _layout(c: Certificate) -> Iterator[Counterexample]:
    """Yield states that overlap, or start unaligned, in their block, or that have another size."""
    end, before = 0, ""
    for name, (offset, size) in sorted(c.state_layout.items(), key=lambda item: item[1]):
        if offset % ALIGNMENT:
            yield Counterexample(TOTALS, f"state {name!r} starts at byte {offset:,}")
        if offset < end:
            yield Counterexample(TOTALS, f"states {before!r} and {name!r} share bytes")
        end, before = offset + size, name
    held = {
        (name, int(size))
        for p in c.programs
        for name, space, size in zip(
            p.blocks.names, p.blocks.space.tolist(), p.blocks.size[:, 0].tolist(), strict=True
        )
        if SPACES[space] == "state"
    }
    for name, size in sorted(held):
        if c.state_layout.get(name, (0, -1))[1] != size:
            yield Counterexample(TOTALS, f"state {name!r} is used as {size:,} bytes, it has others")


def _region(c: Certificate, space: str) -> int:
    """Return the bytes of all feeds, or of the constants of each program by itself."""
    found: dict[str, int] = {}
    for p in c.programs:
        b = p.blocks
        sizes: Ints = at(b.size, c.batch)
        for i in np.flatnonzero(b.space == SPACES.index(space)).tolist():
            name = b.names[i] if space == "feed" else f"{p.name}:{b.names[i]}"
            if not (space == "feed" and name.startswith("gradient:")):
                found[name] = _up(int(sizes[i]))
    return sum(found.values())


def _gradients(p: ProgramTables) -> int:
    return int(at(p.blocks.size, p.capacity)[1])


def _exchange(p: ProgramTables, lanes: int, ranks: int) -> int:
    """Return the bytes of sums held back, and of those from another rank in a stage of a tree."""
    f, total = Facts(p), 0
    tree = ranks > 1 and ranks & (ranks - 1) == 0
    for step in np.flatnonzero(p.steps.kind == SEND).tolist():
        sent = f.value[(p.accesses.step == step) & (p.accesses.use == WRITE)]
        size, item = int(f.high[sent].max() - f.low[sent].min()), int(p.buffers.item[sent[0]])
        half = size if size <= SMALL else size - size // item // 2 * item
        total += size * (lanes - 1).bit_length() + half * tree
    return total


def _up(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
