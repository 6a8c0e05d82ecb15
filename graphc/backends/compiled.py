"""The compiled code of a program between calls of Python: reference rules, sends and receives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from graphc.backends.addresses import address_table
from graphc.backends.backend import Call, Link, Memory, Part, Runner, View, backend, bind_outside
from graphc.backends.layout import Segment, layout
from graphc.base.door import higher
from graphc.kernels.program import Program


class CompiledProgram(Runner):
    """The functions of a program's layout, and the table of addresses that they run on."""

    backend: ClassVar[str]
    """The name of the backend that compiled it."""

    def __init__(
        self, program: Program, skip: frozenset[int], memory: Memory, link: Link | None
    ) -> None:
        self.program, self.layout, self.memory = program, layout(program, skip), memory
        self._link = link
        self.table, self._kept = address_table(program, self.layout, memory)

    @abstractmethod
    def _calls_of(self, segment: Segment, symbol: str, n: int) -> Sequence[Call]:
        """Return the calls that run the function of a segment with `n` rows."""

    @abstractmethod
    def _parts_of(self, segment: Segment, symbol: str, n: int, threads: int) -> Sequence[Part]:
        """Return the parts of a segment with a function, each as small as possible."""

    @property
    def uninterrupted(self) -> bool:
        """True if all calls are of functions: these do not warn, nor can they be interrupted."""
        return all(segment.symbol is not None for segment in self.layout.segments)

    def calls(self, n: int, view: View) -> tuple[list[Call], int]:
        """Return the calls of a run with `n` rows, and how many of them are the forward pass."""
        found: list[Call] = []
        forward = 0
        for segment in self.layout.segments:
            if segment.symbol is None:
                found += self._outside(segment, n, view)
            else:
                found += self._calls_of(segment, segment.symbol, n)
            forward = len(found) if segment.start < self.program.boundary else forward
        return found, forward

    def parts(self, n: int, view: View, threads: int) -> list[Part]:
        """Return the same run in parts: those of each function, and each other call."""
        found: list[Part] = []
        for segment in self.layout.segments:
            if segment.symbol is None:
                number = (segment.start,)
                found.append(Part(self._outside(segment, n, view), number, number))
            else:
                found += self._parts_of(segment, segment.symbol, n, threads)
        return found

    def _outside(self, segment: Segment, n: int, view: View) -> Sequence[Call]:
        instr = self.program.instrs[segment.start]
        if instr.inside is not None:
            own = backend(self.backend), instr.inside, n, view, self.memory
            return [higher("bind compiled loop")(*own)]
        return bind_outside(self.program, instr, n, view, self._link)
