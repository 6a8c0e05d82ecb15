"""The contract of a program inside an instruction, which runs several times: a loop's step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphc.kernels.program import Program

Memory = Callable[[str], str]
"""Names the memory that a buffer is in."""


@dataclass(frozen=True)
class Inside(ABC):
    """A program that runs once for each of `steps`, and where its buffers lie then."""

    program: Program
    steps: int
    workspace: str
    """The buffer around it that holds the arena of the program."""
    at_once: bool = field(default=False, kw_only=True)
    """True if all steps run as one, with steps * rows rows: they hand on nothing."""

    def runs(self, n: int) -> tuple[int, int]:
        """Return how often the program runs, and with how many rows, for a batch of `n` rows."""
        return (1, self.steps * n) if self.at_once else (self.steps, n)

    @property
    @abstractmethod
    def epochs(self) -> int:
        """The number of epochs of the instruction."""

    @property
    @abstractmethod
    def in_turns(self) -> bool:
        """True if threads wait for each other within a step."""

    @property
    @abstractmethod
    def way(self) -> str:
        """The way in which the steps run, in words."""

    @property
    @abstractmethod
    def sliced(self) -> tuple[str, ...]:
        """The buffers around it of which each step reads or writes a slice."""

    @property
    @abstractmethod
    def reread(self) -> Iterable[str]:
        """The buffers of the program that a thread reads in every step that it runs alone."""

    @property
    @abstractmethod
    def handed(self) -> Iterable[str]:
        """The buffers of the program that lie in those around it, or are handed on."""

    @abstractmethod
    def around(self, memory: Memory) -> Memory:
        """Return what names the memory around it that a buffer of the program is in; or ""."""

    @abstractmethod
    def lines(self, instructions: Iterable[str]) -> Iterator[str]:
        """Yield the text, with that of the program's instructions in it."""
