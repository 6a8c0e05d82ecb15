"""The interface of a backend, and of what it runs on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.kernels.program import Instr, Program

Call = Callable[[], object]
"""A step of a run, bound to its memory."""
View = Callable[[str], Array]
"""A function from a buffer's name to its array."""
ZeroCopy = Callable[[Mapping[str, Any]], int | None]
"""A check of arrays fed by name, which lets the next run read them where they lie.

It returns the number of rows, or None if an array is wrong or cannot be read as it is."""


class Link(Protocol):
    """A connection that exchanges values with other shards."""

    def calls(self, program: str, instr: Instr, arrays: Sequence[Array]) -> tuple[Call, ...]:
        """Return the calls of an instruction that sends or receives these arrays."""

    def poke(self) -> None:
        """Advance the transfers that are under way."""


class Memory(Protocol):
    """The memory that a program runs on."""

    @property
    def arena(self) -> Array:
        """The bytes that buffers share over time."""

    @property
    def scratch(self) -> Array:
        """The scratch of all threads, one after another."""

    @property
    def threads(self) -> int:
        """The most threads that may run a program."""

    @property
    def written(self) -> Sequence[Array]:
        """The memory that runs write to."""

    def view(self, program: Program, name: str, n: int) -> Array:
        """Return the array of a buffer for a run of `n` rows."""


class Runner(Protocol):
    """A program on its memory, for any number of rows."""

    @property
    def uninterrupted(self) -> bool:
        """True if no call warns, and no interrupt comes between two of them."""

    def calls(self, n: int, view: View) -> tuple[list[Call], int]:
        """Return the calls of a run with `n` rows, and how many of them are the forward pass."""

    def feed_in_place(self) -> None:
        """Make the next run read all feeds from the memory: none is zero-copy."""

    def zero_copy(self, types: Mapping[str, TensorType]) -> tuple[ZeroCopy, tuple[str, ...]] | None:
        """Return a check of feeds of these types, and the names of feeds that are to be copied.

        Return None if all feeds are copied.
        """


class PeakWork(NamedTuple):
    """Work of almost only multiply-adds, which measures the peak of a machine."""

    name: str
    flops: int
    """The floating-point operations of a call; a multiply-add is two."""
    make: Callable[[], Call]
    """Makes a call with its own memory; threads may each run one at the same time."""


class Backend(Protocol):
    """The interface that each backend implements."""

    name: str
    compiles: bool
    """Whether a program is compiled to code, whose size is unknown before its first run."""

    def missing(self) -> str | None:
        """Return why the backend is unavailable here, or None if it is available."""

    def threads(self, asked: int | None) -> int:
        """Return the most threads that a plan may use, given the number asked for."""

    def scratch(self, program: Program) -> Sequence[int]:
        """Return for each instruction the bytes of scratch that a thread needs."""

    def bind(
        self, program: Program, skip: frozenset[int], memory: Memory, link: Link | None = None
    ) -> Runner:
        """Return a program on its memory, without the instructions in `skip`."""

    def peak_work(self) -> PeakWork:
        """Return the fastest multiply-adds that the backend can make here."""
