"""Rules about loops: what each step reads and writes of the buffers around it, and its workspace.

The program of a step is proved like any other.  These rules prove what lies between steps.

Place.  A slice of a step is a part of its buffer, and all slices make it up.  The arena of the step
and the slots lie in the workspace, side by side.  No two results are written to one place, and a
carried value is not where its next value is written.

Threads.  If the program of a step has one epoch, each thread runs all steps on its own, unless the
loop says that threads wait between steps.  Then no barrier is between two of them, so that what a
thread reads of a carried value must be what it wrote itself in the step before.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphc.check.certificate import Ints, LoopTables, Space, Use
from graphc.check.verify.facts import (
    ALIGNMENT,
    Counterexample,
    Facts,
    aligned,
    size_at,
    size_product,
)
from graphc.check.verify.threads import Threads

OPERANDS = "a loop touches the buffers that it says"
SLICES = "the slices of all steps are the buffer"
WORKSPACE = "the workspace of a loop holds its arena and slots, side by side"
GIVEN = "each input of a step has one place, and each result one of its own"
HANDED = "a thread reads the carried values that it wrote"


def between_steps(f: Facts, loop: LoopTables) -> Iterator[Counterexample]:
    """Yield what is wrong with a loop of a program, apart from the program of its step."""
    made = _Loop(f, loop)
    for rule in (made.inputs, made.operands, made.slices, made.workspace, made.handed):
        yield from rule()


class _Loop:
    def __init__(self, f: Facts, loop: LoopTables) -> None:
        self.f, self.loop, self.g = f, loop, Facts(loop.program)
        self.text = f.step_text(loop.step)

    # ------------------------------------------------------------------ inputs and results

    def inputs(self) -> Iterator[Counterexample]:
        """Yield inputs and results of a step without a place, or with several."""
        loop, names = self.loop, self.g.buffers.names
        single = [i for i in (loop.number,) if i >= 0]
        carried = loop.carried.T
        given = [*loop.sequences[:, 0], *loop.whole[:, 0], *carried[0], *single]
        made = [*loop.stacked[:, 0], *carried[1]]
        own = self.g.buffers.root == np.arange(len(self.g.buffers.root))
        for space, found in ((Space.FEED, given), (Space.RESULT, made)):
            wanted = np.flatnonzero((self.g.space == space) & own).tolist()
            for i in sorted({*wanted, *map(int, found)}):
                times = [int(one) for one in found].count(i)
                if times != 1 or i not in wanted:
                    word = Space(space).word
                    yield Counterexample(
                        GIVEN, f"{self.text} has {times} places for the {word} {names[i]!r}"
                    )
        outer = [*loop.stacked[:, 1].tolist(), *loop.carried[:, 3:].flatten().tolist()]
        kept = [i for i in outer if i >= 0]
        for i in {i for i in kept if kept.count(i) > 1}:
            yield Counterexample(GIVEN, f"{self.text} writes {self.f.buffer_text(i)} twice a step")

    def operands(self) -> Iterator[Counterexample]:
        """Yield buffers that a loop touches, and that its step neither reads nor makes."""
        a, loop = self.f.accesses, self.loop
        touched = {
            use: set(a.buffer[(a.step == loop.step) & (a.use == use)].tolist()) for use in Use
        }
        single = [i for i in (loop.lengths,) if i >= 0]
        carried = loop.carried
        reads = [*loop.sequences[:, 1], *loop.whole[:, 1], *carried[:, 2], *single]
        writes = [*loop.stacked[:, 1], *carried[:, 3:].flatten(), loop.workspace]
        for use, found in ((Use.READ, reads), (Use.WRITE, writes)):
            for i in map(int, found):
                if i >= 0 and i not in touched[use]:
                    yield Counterexample(
                        OPERANDS,
                        f"{self.text} {use.word}s {self.f.buffer_text(i)}, which is not among its",
                    )

    # ------------------------------------------------------------------ sizes

    def slices(self) -> Iterator[Counterexample]:
        """Yield buffers that are not as large as the slices of all steps."""
        loop = self.loop
        rows = self.f.capacity * (loop.steps if loop.at_once else 1)
        if loop.program.capacity != rows:
            yield Counterexample(
                SLICES, f"a step of {self.text} has {loop.program.capacity} rows, not {rows}"
            )
        for feed, result, initial, last, before, stacked in loop.carried.tolist():
            yield from self._sized(result, feed, 1, self.g)
            for outer in (initial, last):
                yield from self._sized(feed, outer, 1)
            for outer in (before, stacked):
                yield from self._sized(feed, outer, loop.steps)
        for inner, outer in loop.sequences.tolist():
            yield from self._sized(inner, outer, loop.steps, batched=True)
        for inner, outer in loop.stacked.tolist():
            yield from self._sized(inner, outer, loop.steps)
        for inner, outer in loop.whole.tolist():
            yield from self._sized(inner, outer, 1, batched=False)

    def _sized(
        self,
        inner: int,
        outer: int,
        steps: int,
        f: Facts | None = None,
        batched: bool | None = None,
    ) -> Iterator[Counterexample]:
        """Yield a buffer that has not the elements of so many of a step's.

        If all steps run at once, what has the batch has the rows of all of them, and what has not
        is a sum over them; `batched` says what an input must be then.
        """
        if outer < 0:
            return
        f, g = f or self.f, self.g
        elements, wrong = g.elements[inner], False
        if self.loop.at_once:
            has = bool(elements[1:].any())
            wrong = batched is not None and has != batched
            elements = elements * np.array([1, steps, steps * steps])
        else:
            elements = size_product(elements, np.array([steps, 0, 0]))
        same = (elements == f.elements[outer]).all() and not wrong
        dense = not f.buffers.pitch[outer] and not g.buffers.pitch[inner]
        if not (same and dense and f.buffers.item[outer] == g.buffers.item[inner]):
            yield Counterexample(
                SLICES,
                f"{self.text} has {g.buffers.names[inner]!r} as a part of {f.buffer_text(outer)}",
                ("that has other elements than all steps together",),
            )

    def workspace(self) -> Iterator[Counterexample]:
        """Yield slots that are not behind the arena, overlap, or end past the workspace."""
        loop, g = self.loop, self.g
        end = aligned(loop.program.arena)
        size = g.extent
        slots = sorted(zip(loop.offset.tolist(), loop.slot.tolist(), strict=True))
        before = "the arena of the step"
        for offset, i in slots:
            name = repr(g.buffers.names[i])
            if offset < end or offset % ALIGNMENT:
                yield Counterexample(
                    WORKSPACE, f"the slot of {name} at byte {offset:,} starts within {before}"
                )
            end, before = offset + int(size[i]), f"the slot of {name}"
        held = int(size_at(self.f.elements[loop.workspace], self.f.capacity))
        if end > held:
            yield Counterexample(
                WORKSPACE, f"{self.text} has {held:,} bytes, and needs {end:,} for its steps"
            )
        if loop.at_once:
            return
        whole = set(loop.whole[:, 0].tolist())
        needed = [*loop.carried[:, :2].flatten().tolist(), *loop.sequences[:, 0].tolist()]
        for i in needed:
            if i not in whole and i not in loop.slot:
                yield Counterexample(WORKSPACE, f"{g.buffers.names[i]!r} has no slot")

    # ------------------------------------------------------------------ threads

    def handed(self) -> Iterator[Counterexample]:
        """Yield carried values that a thread reads, and another one wrote in the step before."""
        g, loop = self.g, self.loop
        if loop.at_once:
            if len(loop.carried):
                yield Counterexample(
                    HANDED, f"{self.text} runs all steps at once, and has carried values"
                )
            return
        if loop.waits or len(set(g.epochs[:-1].tolist())) > 1:
            return  # threads wait for each other between steps, or in a step
        if not all(g.buffers.rows[feed][1:].any() for feed, *_ in loop.carried.tolist()):
            return  # nor does a thread run on where what is handed on has no rows of the batch
        threads = Threads(g)
        for feed, result, *_ in loop.carried.tolist():
            reads, writes = self._touching(feed), self._touching(result)
            i, j = np.repeat(reads, len(writes)), np.tile(writes, len(reads))
            for k in np.flatnonzero(~threads.agree(i, j, by_place=True)).tolist():
                yield Counterexample(
                    HANDED,
                    f"{self.text}: {g.step_of(int(i[k]))} reads {g.buffer_of(int(i[k]))}, which "
                    f"{g.step_of(int(j[k]))} of the step before wrote",
                    ("threads share it in another way there, and no barrier is between",),
                )

    def _touching(self, value: int) -> Ints:
        return np.flatnonzero(self.g.value == value)
