"""Rules about populations: members have states, and threads memory, that no other one touches.

What lies in copies that start equally far apart is disjoint, for any number of copies, if each
copy ends before the next starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np

from graphc.check.certificate import Certificate, MemberClaims, Places, ProgramTables, Space
from graphc.check.verify.claims import TOTALS, apart
from graphc.check.verify.facts import ALIGNMENT, Counterexample, Facts, size_at

OWN = "members and threads have memory of their own"


def own(c: Certificate) -> Iterator[Counterexample]:
    """Yield memory that is of two members or of two threads, or smaller than what it holds."""
    m = c.members
    if m is None:
        return
    yield from _copies("states of members", c.state_layout, m.state)
    yield from apart(m.places, "feed", OWN)
    yield from _copies("feeds of threads", m.places, m.area)
    if m.threads > c.memory.threads:
        yield Counterexample(
            OWN, f"{m.threads} threads run members, {c.memory.threads} have a scratch"
        )
    for p in c.programs:
        if p.name in m.apart:
            yield from chain(_arenas(m, p), _written(p), _fed(m, p))


def totals(c: Certificate) -> Iterator[Counterexample]:
    """Yield wrong sums: of the arenas, of the feeds, of all that is not a member's."""
    m = c.members
    if m is None:
        return
    found = {
        "arena": _block(m.threads * max((p.arena for p in c.programs), default=0)),
        "feeds": _block(m.threads * m.area),
    }
    rest = c.memory.total - c.memory.gradients - c.memory.arena - c.memory.feeds
    found["fixed"] = rest + sum(found.values()) + _block(m.state) - m.state
    for name, size in found.items():
        claimed = getattr(m, name)
        if claimed != size:
            yield Counterexample(
                TOTALS, f"a population has {claimed:,} bytes as {name!r}, they are {size:,}"
            )


def _block(size: int) -> int:
    """Return the bytes of a block that is aligned."""
    return size + ALIGNMENT if size else 0


def _copies(what: str, places: Places, far: int) -> Iterator[Counterexample]:
    """Yield arrays that reach into the next copy, or a distance that does not keep them aligned."""
    if far % ALIGNMENT:
        yield Counterexample(OWN, f"the {what} are {far:,} bytes apart, which is not aligned")
    for name, (offset, size) in places.items():
        if offset + size > far:
            end = offset + size
            yield Counterexample(
                OWN, f"the {what} are {far:,} bytes apart, {name!r} ends at byte {end:,} of each"
            )


def _arenas(m: MemberClaims, p: ProgramTables) -> Iterator[Counterexample]:
    """Yield the arenas of a program that overlap, or of which one ends past the block."""
    far = m.apart[p.name]
    what = f"arenas of threads in program {p.name!r}"
    yield from _copies(what, {"arena": (0, p.arena)}, far)
    end = (m.threads - 1) * far + p.arena
    if _block(end) > m.arena:
        yield Counterexample(OWN, f"the {what} end at {end:,}, in a block of {m.arena:,} bytes")


def _written(p: ProgramTables) -> Iterator[Counterexample]:
    """Yield writes to memory that all threads share: a member's own are its state and an arena."""
    f = Facts(p)
    space = f.space[f.accesses.buffer[f.writes]]
    for i in f.writes[(space != Space.ARENA) & (space != Space.STATE)].tolist():
        yield Counterexample(OWN, f"{f.step_of(i)} writes {f.buffer_of(i)}, which members share")


def _fed(m: MemberClaims, p: ProgramTables) -> Iterator[Counterexample]:
    """Yield feeds that a thread has no room for."""
    sizes = size_at(p.blocks.size, p.capacity)
    for i in np.flatnonzero(p.blocks.space == Space.FEED).tolist():
        name, size = p.blocks.names[i], int(sizes[i])
        room = m.places.get(name, (0, 0))[1]
        if room < size:
            yield Counterexample(
                OWN,
                f"a thread has {room:,} bytes for the feed {name!r}, "
                f"which has {size:,} in program {p.name!r}",
            )
