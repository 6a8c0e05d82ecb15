"""The check that every read finds its value, written once and whole, and that states advance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphc.check.certificate.tables import SPACES
from graphc.check.verify.facts import STATE, Facts, at
from graphc.check.verify.report import Counterexample
from graphc.check.verify.words import Words

DEFINED = "every read is of a defined value"
WRITERS = "every value has one writer"
GIVEN = "feeds and constants are not written"
STATES = "a state is written by its update alone"


def given(f: Facts) -> Iterator[Counterexample]:
    """Yield writes to values that exist before the program."""
    a, words = f.accesses, Words(f)
    wrong = f.writes[f.initial[f.value[f.writes]]]
    for i in wrong.tolist():
        space = SPACES[f.space[a.buffer[i]]]
        yield Counterexample(
            GIVEN,
            f"{words.step(int(a.step[i]))} writes the {space} {words.buffer(int(a.buffer[i]))}",
        )


def defined(f: Facts) -> Iterator[Counterexample]:
    """Yield reads that are not after all writes of their value, and results that no step writes."""
    a, words = f.accesses, Words(f)
    first, last = f.written
    reads = np.flatnonzero(a.use == 0)
    value = f.value[reads]
    bad = ~f.initial[value] & (last[value] < 0) | (last[value] >= a.step[reads])
    for i in reads[bad].tolist():
        v, step = int(f.value[i]), int(a.step[i])
        writer = "no step writes it" if last[v] < 0 else f"{words.step(int(last[v]))} writes it"
        yield Counterexample(
            DEFINED,
            f"{words.step(step)} reads {words.buffer(int(a.buffer[i]))} before it is written",
            (writer, *_border(f, step, int(first[v]))),
        )
    for named in (f.tables.outputs, f.tables.gradients):
        found = f.buffers.root[named.buffer]
        for i in np.flatnonzero(~f.initial[found] & (last[found] < 0)).tolist():
            name, v = named.names[i], int(found[i])
            yield Counterexample(DEFINED, f"{name!r} is {words.buffer(v)}, which no step writes")


def _border(f: Facts, reader: int, writer: int) -> tuple[str, ...]:
    border = f.tables.border
    if reader < border <= writer < f.end:
        return (f"the reader is in the forward pass, which ends before step {border}",)
    return ()


def writers(f: Facts) -> Iterator[Counterexample]:
    """Yield values that are not written once and whole.

    One step writes all of a value, or several write disjoint parts that make it up.
    """
    a, b = f.accesses, f.buffers
    count = np.bincount(f.value[f.writes], minlength=len(b.root))
    whole = (f.elements == f.elements[b.root]).all(axis=-1)
    odd = (count > 1)[f.value[f.writes]] | ~whole[a.buffer[f.writes]]
    parts: dict[int, list[int]] = {}
    for i in f.writes[odd].tolist():
        parts.setdefault(int(f.value[i]), []).append(i)
    for v, found in parts.items():
        yield from _parts(f, v, found)


def _parts(f: Facts, v: int, found: list[int]) -> Iterator[Counterexample]:
    """Yield the faults in writes of the columns of one value, each of all rows."""
    a, b, words = f.accesses, f.buffers, Words(f)
    found.sort(key=lambda i: (int(b.shift[a.buffer[i]]), int(a.step[i])))
    pitch = int(b.pitch[a.buffer[found[0]]])
    width, end = pitch or int(at(b.columns[v], f.capacity)), 0
    for i, before in zip(found, [-1, *found], strict=False):
        view = int(a.buffer[i])
        start = int(b.shift[view])
        whole = bool((f.elements[view] == f.elements[v]).all())
        if b.pitch[view] != pitch or not (pitch or whole):
            yield Counterexample(
                WRITERS,
                f"{words.step(int(a.step[i]))} writes {words.buffer(view)}, which is neither all "
                f"nor some columns of {words.buffer(v)}",
            )
        if start < end:
            other, step = int(a.step[before]), int(a.step[i])
            yield Counterexample(
                WRITERS,
                f"{words.step(other)} and {words.step(step)} both write {words.buffer(v)}",
                (f"they share {words.bytes(view, int(a.buffer[before]))}",),
            )
        if start > end:
            yield _gap(f, v, end, start)
        end = start + int(at(b.columns[view], f.capacity))
    if end < width:
        yield _gap(f, v, end, width)


def _gap(f: Facts, v: int, start: int, end: int) -> Counterexample:
    sentence = f"no step writes columns {start}..{end} of {Words(f).buffer(v)}"
    return Counterexample(DEFINED, sentence)


def states(f: Facts) -> Iterator[Counterexample]:
    """Yield states without their next value at the end, and writes of other values to states."""
    a, words = f.accesses, Words(f)
    ends, updates = f.next_states, f.tables.updates
    for i in np.flatnonzero(ends < 0).tolist():
        yield Counterexample(
            STATES,
            f"state {updates.names[i]!r} never gets its next value "
            f"{words.buffer(int(updates.buffer[i]))}",
            ("that is not in the state's memory, and no step copies it there",),
        )
    into = f.writes[f.space[a.buffer[f.writes]] == STATE]
    due = np.zeros(len(f.buffers.root), bool)
    due[ends[ends >= 0]] = True
    bad = ~due[f.value[into]]
    for i in into[bad].tolist():
        yield Counterexample(
            STATES,
            f"{words.step(int(a.step[i]))} writes {words.buffer(int(a.buffer[i]))}, "
            "which is not the next value of that state",
        )
    late = a.step[into] >= f.tables.border
    for i in into[late].tolist():
        yield Counterexample(
            STATES,
            f"{words.step(int(a.step[i]))} writes {words.buffer(int(a.buffer[i]))} in the "
            "backward pass",
            ("forward(train=True) ends before it, and would not advance the state",),
        )
