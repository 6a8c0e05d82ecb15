"""The check that data between shards is untouched in transit, and sent and awaited once, whole."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphc.check.certificate.tables import (
    READ,
    RECEIVE,
    SEND,
    WRITE,
    Certificate,
    Ints,
    ProgramTables,
)
from graphc.check.verify.facts import ALIGNMENT, ARENA, Facts
from graphc.check.verify.report import Counterexample
from graphc.check.verify.words import Words

EXCHANGE = "what is under way is left alone until it has arrived"
MEETINGS = "shards come to the sums that they need in one order"
HOLDS = "shard"
"""The program of the shards before the last of a rank."""


def exchange(f: Facts) -> Iterator[Counterexample]:
    """Yield buckets in pieces, not awaited exactly once, or touched by others before arrival."""
    words = Words(f)
    sends = np.flatnonzero(f.steps.kind == SEND).tolist()
    awaited = {i: _values(f, i, READ) for i in np.flatnonzero(f.steps.kind == RECEIVE).tolist()}
    for step in [*sends, *awaited]:
        yield from _in_place(f, step)
    for send in sends:
        sent = _values(f, send, WRITE)
        yield from _in_one_piece(f, send, sent)
        arrivals = [i for i, values in awaited.items() if np.isin(values, sent).any()]
        if awaited and [awaited.pop(i).tolist() for i in arrivals] != [sent.tolist()]:
            yield Counterexample(
                EXCHANGE, f"{words.step(send)} sends what no step awaits, once and as a whole"
            )
            return
        end = arrivals[0] if arrivals else f.end
        yield from _left_alone(f, send, end, sent)
    for step in awaited:
        yield Counterexample(EXCHANGE, f"{words.step(step)} awaits what no step sends")


def meetings(c: Certificate) -> Iterator[Counterexample]:
    """Yield programs that await sums in another order than the program `HOLDS`.

    All shards await together each sum that they continue with, so their orders must not cross.
    """
    orders = {p.name: _awaited(p) for p in c.programs}
    wanted = orders.pop(HOLDS, [])
    for name, order in orders.items():
        met = [each for each in order if each in wanted]
        if order and met != wanted:
            i = next((i for i, (a, b) in enumerate(zip(met, wanted, strict=False)) if a != b), -1)
            here = f"program {name!r} awaits {met[i]!r}" if met else f"program {name!r} awaits none"
            yield Counterexample(MEETINGS, f"{here} where {HOLDS!r} awaits {wanted[i]!r}")


def _awaited(p: ProgramTables) -> list[str]:
    """Return the first value of each sum that a program awaits, in its order."""
    a = p.accesses
    steps = np.flatnonzero(p.steps.kind == RECEIVE).tolist()
    firsts = [a.buffer[(a.step == step) & (a.use == WRITE)][0] for step in steps]
    return [p.buffers.names[first] for first in firsts]


def _values(f: Facts, step: int, use: int) -> Ints:
    """Return the values that a step reads or writes, in its order."""
    a = f.accesses
    return np.asarray(f.value[(a.step == step) & (a.use == use)])


def _in_place(f: Facts, step: int) -> Iterator[Counterexample]:
    """Yield a step whose results are not at its operands: the exchange must not move values."""
    read, written = _values(f, step, READ), _values(f, step, WRITE)
    same = len(read) == len(written) and all(
        (table[read] == table[written]).all() for table in (f.low, f.high)
    )
    if not same:
        words = Words(f)
        yield Counterexample(
            EXCHANGE, f"{words.step(step)} does not leave its results where its operands are"
        )


def _in_one_piece(f: Facts, send: int, sent: Ints) -> Iterator[Counterexample]:
    """Yield a send whose values do not follow each other in the arena.

    Each must start at the next multiple of 64 bytes.
    """
    low, high = f.low[sent], f.high[sent]
    ends = -(-(high - f.base[0]) // ALIGNMENT) * ALIGNMENT + f.base[0]
    good = bool((f.space[sent] == ARENA).all() and (ends[:-1] == low[1:]).all())
    if not good or (f.buffers.item[sent] != f.buffers.item[sent[0]]).any():
        words = Words(f)
        yield Counterexample(EXCHANGE, f"{words.step(send)} sends what is not in one piece")


def _left_alone(f: Facts, send: int, end: int, sent: Ints) -> Iterator[Counterexample]:
    """Yield other steps that touch the piece, and values that live in it, from send to arrival."""
    a, words = f.accesses, Words(f)
    low, high = f.low[sent].min(), f.high[sent].max()
    between = (a.step > send) & (a.step < end)
    value = f.value[between]
    touched = (f.low[value] < high) & (f.high[value] > low)
    for i in np.flatnonzero(between)[touched].tolist():
        yield Counterexample(
            EXCHANGE,
            f"{words.step(int(a.step[i]))} touches {words.buffer(int(a.buffer[i]))} between "
            f"{words.step(send)} and {words.step(end)}",
        )
    start, last = f.life
    alive = (start <= 2 * send) & (last > 2 * send) & (f.low < high) & (f.high > low)
    alive[sent] = False
    for v in np.flatnonzero(alive & (start <= last)).tolist():
        yield Counterexample(
            EXCHANGE, f"{words.buffer(v)} is needed while {words.step(send)} is under way"
        )
