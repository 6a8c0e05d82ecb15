"""The kernel of a loop: a program that runs at each step, and where its buffers lie then.

The step's program has buffers of its own.  Its feeds lie in buffers of the program around it, or in
a slice of them; its results are written to slices, too, so that nothing is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from graphc.ir.text.graph import name_text
from graphc.kernels.inside import Inside, Memory


@dataclass(frozen=True, slots=True)
class CarriedBuffer:
    """A value that steps hand on: a feed of the step's program, and its result.

    A step writes its result to the slice of `stacked`, or else to the slice of `before` that the
    next step reads, or else to one of two places in the workspace.
    """

    feed: str
    result: str
    initial: str
    """The buffer with the value before the first step; "" means zeros."""
    last: str = ""
    """The buffer that gets the value after the last step, if it is asked for."""
    before: str = ""
    """The buffer that gets the value before each step, if it is asked for."""
    stacked: str = ""
    """The buffer that gets the value after each step, if it is asked for."""


@dataclass(frozen=True)
class ScanKernel(Inside):
    """A program that runs once for each step of a sequence.

    `sequences` are the feeds that are slices, and the buffers they are slices of; `whole` are the
    feeds that are a buffer as a whole.  `stacked` are the results of a step that are not carried,
    and the buffers of which they write a slice.
    """

    reverse: bool
    sequences: Mapping[str, str]
    whole: Mapping[str, str]
    carried: tuple[CarriedBuffer, ...]
    stacked: Mapping[str, str]
    number: str
    """The feed that is the position of the step, if there is one."""
    lengths: str
    """The buffer with the number of steps of each row, if rows have their own."""
    slots: Mapping[str, int]
    """For each carried feed and result its place in the workspace, after the arena."""
    waits: bool = False
    """True if a thread reads what others hand on, so that they wait between steps."""

    @cached_property
    def phases(self) -> tuple[tuple[int, ...], ...]:
        """The instructions of each epoch of a step, by their numbers; a loop is repeated."""
        found: list[tuple[int, ...]] = []
        for epoch in dict.fromkeys(self.program.epochs):
            numbers = [i for i, own in enumerate(self.program.epochs) if own == epoch]
            code = tuple(i for i in numbers if self.program.instrs[i].kind != "barrier")
            inner = self.program.instrs[code[0]].inside if code else None
            found += [code] * (1 if inner is None else inner.epochs)
        return tuple(phase for phase in found if phase)

    @property
    def epochs(self) -> int:
        """The number of epochs.

        It is one if each thread runs all steps alone, that of the phases of a step if all steps run
        at once, else that of all steps, one before the first and one after the last.
        """
        if self.at_once:
            return len(self.phases)
        return 1 if self.shared else self.steps * len(self.phases) + 2

    @property
    def shared(self) -> bool:
        """True if each thread can run all steps on its own rows."""
        rows = (self.program.buffers[one.feed].type for one in self.carried)
        return not self.waits and len(self.phases) == 1 and all(type.batched for type in rows)

    @property
    def in_turns(self) -> bool:
        """True if threads wait for each other within a step."""
        return not self.at_once and not self.shared

    @property
    def way(self) -> str:
        """The way in which the steps run, in words."""
        if self.at_once:
            return "all at once"
        return "by each thread" if self.shared else "by threads in turns"

    @property
    def operands(self) -> tuple[str, ...]:
        """The buffers that are read."""
        initial = (one.initial for one in self.carried if one.initial)
        lengths = (self.lengths,) if self.lengths else ()
        return (*self.sequences.values(), *initial, *self.whole.values(), *lengths)

    @property
    def sliced(self) -> tuple[str, ...]:
        """The buffers around it of which each step reads or writes a slice."""
        return (*self.sequences.values(), *self.sequences_written())

    @property
    def reread(self) -> Iterable[str]:
        """The buffers of the program that a thread reads in every step that it runs alone."""
        return self.whole if self.shared and not self.at_once else ()

    @property
    def handed(self) -> Iterable[str]:
        """The buffers of the program that lie in those around it, or are handed on."""
        carried = chain.from_iterable((one.feed, one.result) for one in self.carried)
        return chain(carried, self.sequences, self.whole, self.stacked)

    def around(self, memory: Memory) -> Memory:
        """Return what names the memory around it that a buffer of the program is in; or ""."""
        outer = {k: memory(v) for k, v in self.whole.items()}
        for one in self.carried:
            outer |= {one.feed: memory(one.initial), one.result: memory(one.last)}
        return lambda name: outer.get(self.program.aliases.get(name, name), "")

    def count(self, view: Callable[[str], Any]) -> int:
        """Return the number of steps that run: those of the longest row."""
        if not self.lengths:
            return self.steps
        return min(max(int(view(self.lengths).max(initial=0)), 0), self.steps)

    def sequences_written(self) -> Iterator[str]:
        """Yield the buffers of which each step writes a slice."""
        yield from self.stacked.values()
        for one in self.carried:
            yield from filter(None, (one.before, one.stacked))

    def written(self) -> Iterator[str]:
        """Yield the buffers that are written."""
        yield self.workspace
        yield from self.sequences_written()
        yield from (one.last for one in self.carried if one.last)

    @property
    def head(self) -> str:
        """The number of steps, and their order, in words."""
        order = ", the last one first" if self.reverse and not self.at_once else ""
        longest = f", at most max({name_text(self.lengths)})" if self.lengths else ""
        return f"scan of {self.steps} steps{longest}{order}"

    def lines(self, instructions: Iterable[str]) -> Iterator[str]:
        """Yield what a loop reads and writes, and the instructions of its step."""
        yield f"{self.head}, {self.way}"
        for name, outer in self.sequences.items():
            yield f"  {name_text(name)} = {name_text(outer)}[t]"
        for one in self.carried:
            start = name_text(one.initial) if one.initial else "0"
            after = f"{name_text(one.result)} of the step before"
            yield f"  {name_text(one.feed)} = {start}, then {after}"
        yield from (f"  {line}" for line in instructions)
        for name, outer in self.stacked.items():
            part = "[t]" if not self.at_once or self.program.buffers[name].type.batched else ""
            yield f"  {name_text(outer)}{part} = {name_text(name)}"
        for one in self.carried:
            kept = ((one.before, "[t]", one.feed), (one.stacked, "[t]", one.result))
            for outer, part, name in (*kept, (one.last, "", f"the last {one.result}")):
                if outer:
                    yield f"  {name_text(outer)}{part} = {name}"
