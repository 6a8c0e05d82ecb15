"""The interface of a backend, and of what it runs on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache, partial
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from graphc.base.errors import GraphError, RuleError
from graphc.base.loc import caller_loc
from graphc.ir.forms import TermOrder
from graphc.ir.interpreter import wrong_result
from graphc.ir.op import Array, Op
from graphc.ir.tensor_type import TensorType
from graphc.kernels.program import Instr, Program

Call = Callable[[], object]
"""A step of a run, bound to its memory."""
View = Callable[[str], Array]
"""A function from a buffer's name to its array."""
ZeroCopy = Callable[[Mapping[str, Any]], int | None]
"""A check of arrays fed by name, which lets the next run read them where they lie.

It returns the number of rows, or None if an array is wrong or cannot be read as it is."""


Order = Callable[[Array, Array], Iterator[Call]]
"""A function that yields the calls that write to its first array the elements of the second one, of
the same shape, in another order."""


def in_order(order: Order, array: Array) -> Array:
    """Return a copy of an array with its elements in another order."""
    found = np.empty(array.shape, array.dtype)
    for call in order(found, array):
        call()
    return found


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

    @property
    def feed_bytes(self) -> int:
        """The bytes of the feeds of a thread; those of the next thread, if it has any, follow."""

    def view(self, program: Program, name: str, n: int) -> Array:
        """Return the array of a buffer for a run of `n` rows."""


class Part(NamedTuple):
    """Calls of a run after which some values can be examined.

    `starts` are the numbers of the instructions that read their operands in these calls, `ends`
    those whose results are complete after them.
    """

    calls: Sequence[Call]
    starts: tuple[int, ...]
    ends: tuple[int, ...]


Rows = NDArray[np.int64]


class Spread(NamedTuple):
    """An array of which each run has a part."""

    array: Array
    by: Literal["none", "number", "first", "state", "chosen"] = "none"
    """The number that is multiplied by the stride: none, so that all runs share one part; that of
    the run, of its first row among those of all runs, or of its state.  "chosen" are rows that the
    run gathers, by the numbers in `SideBySide.chosen`."""
    stride: int = 0
    """The bytes from a part to the next; those of a row for "first" and "chosen"."""
    offset: int = 0
    """The bytes before the first part."""


class SideBySide(NamedTuple):
    """Runs of one program, in series that do not depend on each other: threads take whole ones."""

    rows: Rows
    """The number of rows of each run."""
    feeds: Mapping[str, Spread]
    results: Mapping[str, Spread]
    """The arrays that outputs are copied to; a part is as long as the stride."""
    states: Mapping[str, Spread] = MappingProxyType({})
    """The arrays of the states, if each run has a state of its own."""
    numbers: Rows = np.zeros(0, np.int64)
    """The number of the state of each run."""
    chosen: Rows | None = None
    """The numbers of the rows of all runs, one run after the other, in arrays that are gathered."""
    begin: Rows | None = None
    """The number of the first run of each series, and the number of all runs: those of a series are
    made one after the other, on one state.  None if each run is a series by itself."""


class Ready(NamedTuple):
    """Runs that are made side by side, until others are."""

    calls: tuple[Call, ...]
    """The calls that make them, in order."""
    current: Callable[[], bool]
    """Returns whether no others have been made ready since."""
    refeed: Callable[[Mapping[str, TensorType], Sequence[Array]], ZeroCopy]
    """Makes a check of feeds of these types, which the calls read from then on where they lie; they
    must not lie in the memory that runs write to.  Rows are those of all runs together."""
    choose: Callable[[Rows, Rows], None]
    """Sets the number of rows of each run, and the rows that they gather."""
    fill: Callable[[Sequence[Array]], None]
    """Sets the arrays of results, in order."""


class Runner(Protocol):
    """A program on its memory, for any number of rows; by default it copies all feeds."""

    @property
    def uninterrupted(self) -> bool:
        """True if no call warns, and no interrupt comes between two of them."""

    def calls(self, n: int, view: View) -> tuple[list[Call], int]:
        """Return the calls of a run with `n` rows, and how many of them are the forward pass."""

    def parts(self, n: int, view: View, threads: int) -> Sequence[Part]:
        """Return the same run in parts, as small as possible.

        This thread does the work of `threads` threads in turns, the last one first.
        """

    def feed_in_place(self) -> None:
        """Make the next run read all feeds from the memory: none is zero-copy."""
        return None

    def zero_copy(self, types: Mapping[str, TensorType]) -> tuple[ZeroCopy, tuple[str, ...]] | None:
        """Return a check of feeds of these types, and the names of feeds that are to be copied.

        Return None if all feeds are copied.
        """
        return None

    def side_by_side(self, work: SideBySide) -> Ready | None:
        """Return the calls that make these runs, each thread its own ones.

        Return None if threads cannot: then runs are made one by one.
        """
        return None


class PeakWork(NamedTuple):
    """Work of almost only multiply-adds, which measures the peak of a machine."""

    name: str
    flops: int
    """The floating-point operations of a call; a multiply-add is two."""
    make: Callable[[], Call]
    """Makes a call with its own memory; threads may each run one at the same time."""


class Backend(Protocol):
    """The interface of a backend; by default it has one thread and keeps no code."""

    name: str
    compiles: bool
    """True if a program is compiled to code, whose size is unknown before its first run."""
    by_row: bool
    """True if the bits of a row do not depend on the rows that run with it."""

    def missing(self) -> str | None:
        """Return why the backend is unavailable here, or None if it is available."""

    def threads(self, asked: int | None) -> int:
        """Return the most threads that a plan may use, given the number asked for."""
        return 1

    def rates_of_orders(self) -> Mapping[TermOrder, float]:
        """Return how many times as fast as those of float32 products in each order of terms are.

        All have their factors in a cache.  Orders that are always slower are left out.
        """
        return {}

    def scratch(self, program: Program) -> Sequence[int]:
        """Return for each instruction the bytes of scratch that a thread needs."""

    def orders(self, program: Program) -> Mapping[str, Order]:
        """Return the orders of the constants that code does not read in the order declared."""
        return {}

    def bind(
        self, program: Program, skip: frozenset[int], memory: Memory, link: Link | None = None
    ) -> Runner:
        """Return a program on its memory, without the instructions in `skip`."""

    def wrong_code(self, program: Program, emits: bool) -> str | None:
        """Return why the code that is kept for a program is not its own, or None if it is.

        The text of the program is compared and, with `emits`, its machine code, compiled anew.
        """
        return None

    def peak_work(self) -> PeakWork:
        """Return the fastest multiply-adds that the backend can make here."""


def bind_exchange(program: str, instr: Instr, view: View, link: Link | None) -> Sequence[Call]:
    """Return the calls of an instruction that sends or receives; none without a link."""
    return () if link is None else link.calls(program, instr, [view(name) for name in instr.outs])


def bind_outside(
    program: Program, instr: Instr, n: int, view: View, link: Link | None
) -> Sequence[Call]:
    """Return the calls of an instruction that is not a kernel: an exchange, or a reference rule."""
    if instr.kind in ("send", "receive"):
        return bind_exchange(program.name, instr, view, link)
    return (bind_reference(instr, n, view),)


def bind_reference(instr: Instr, n: int, view: View) -> Call:
    """Return the call that runs an op's reference rule and copies its result."""
    assert instr.op is not None, "the instruction is of an op"
    ins, (out,) = [view(name) for name in instr.ins], map(view, instr.outs)
    return partial(_referred, instr.op.at(n), ins, out, instr.node)


def _referred(op: Op, ins: Sequence[Array], out: Array, node: str) -> None:
    try:
        value = np.asarray(op.reference(ins))
    except Exception as error:
        error.add_note(f"in the reference rule of {op.name} {node!r}")
        raise
    if value.shape != out.shape or not np.can_cast(value.dtype, out.dtype, "same_kind"):
        fault = wrong_result(value, out.shape, out.dtype.name)
        raise RuleError(op.name, "reference", fault, node)
    np.copyto(out, value)


BACKENDS = ("native", "c", "numpy")
"""The names of all backends, the preferred one first; each is a folder of that name."""
PORTABLE = "numpy"
"""The backend that is available everywhere."""
USUAL = (BACKENDS[0], PORTABLE)
"""The backends of plans that ask for none."""


@cache
def backend(name: str) -> Backend:
    """Return the backend of that name."""
    found: Backend = import_module(f"graphc.backends.{name}.backend").BACKEND
    return found


def chosen_backend(asked: str | None) -> str:
    """Return the backend asked for, else that of GRAPHC_BACKEND, else the first that is available.

    Warn if that is not the one to be preferred.  Raise GraphError if the name is not a backend's,
    or if the backend is not available on this machine.
    """
    if asked is not None:
        return _checked(asked, f"there is no backend {asked!r}")
    forced = os.environ.get("GRAPHC_BACKEND", "").strip()
    if forced:
        return _checked(forced, f"GRAPHC_BACKEND is {forced!r}, which is not a backend")
    preferred = BACKENDS[0]
    reason = _missing(preferred)
    if reason is None:
        return preferred
    _warn(reason)
    return PORTABLE


def kept_backend(name: str) -> str:
    """Return the backend of a saved plan; if that is the preferred one, choose anew here."""
    return chosen_backend(None if name == BACKENDS[0] or name not in BACKENDS else name)


def _checked(name: str, complaint: str) -> str:
    if name not in BACKENDS:
        *others, last = (f'"{known}"' for known in BACKENDS)
        there = f"{', '.join(others)} and {last}"
        raise GraphError(complaint, loc=caller_loc(), hint=f"there are {there}")
    reason = _missing(name)
    if reason is not None:
        raise GraphError(
            f"there is no {name} backend here: {reason}",
            loc=caller_loc(),
            hint=f'leave backend out, or ask for "{PORTABLE}"',
        )
    return name


@lru_cache
def _missing(name: str) -> str | None:
    return backend(name).missing()


@lru_cache
def _warn(reason: str) -> None:
    """Warn, once per process, that plans run on NumPy and why."""
    warnings.warn(f"graphc runs on NumPy: {reason}", RuntimeWarning, stacklevel=4)
