"""The exchange between ranks over any transport, with sums in a fixed order.

The sums of ranks 0 and 1, 2 and 3, ... are added first, then those of pairs of pairs.  So the sum
over all shards is one balanced tree, whether a rank adds up a part of it alone or with others, and
its bits do not depend on how ranks share shards:

    ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))

Large buffers use recursive halving and doubling: in each stage two ranks share the work of adding
their sums, and exchange the halves at the end (Rabenseifner 2004), so that 2 (p - 1) / p times the
bytes leave each of p ranks.  Small ones use recursive doubling, in half as many messages.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from graphc.base.errors import RankError, StateError
from graphc.compiler.sharding import SMALL
from graphc.ir.op import Array

LIMIT = 300.0
"""Seconds without an answer after which a rank counts as lost."""

_SPIN = 10e-3
_PAUSE = 100e-6
"""The seconds of polling without a pause, and the pause between two polls after that."""

_LONGEST = 1.0
"""The most seconds that count between two polls: more pass while the whole job is suspended."""


class Request(Protocol):
    """An operation in progress between ranks; its buffers are not touched until it is done."""

    def test(self) -> bool:
        """Advance the operation and return whether it is done."""

    def who(self) -> str:
        """Return the name of the rank that the operation waits for, for an error."""


class Swap(Request, Protocol):
    """A request that receives an array."""

    @property
    def arrived(self) -> Array:
        """The array received once the request is done; the next message but one overwrites it."""


@runtime_checkable
class Communicator(Protocol):
    """A rank's view of all ranks.  All of them make the same calls in the same order."""

    rank: int
    size: int
    limit: float
    """Seconds after which `wait` gives up."""

    def expect(self, sizes: Sequence[int]) -> None:
        """Prepare for messages with tags 0, 1, ... that are halves of buffers of `sizes` bytes."""

    def swap(self, partner: int, out: Array, into: Array, tag: int) -> Swap:
        """Send `out` to a partner and receive an array from it, which may be put into `into`."""

    def total(self, buffer: Array, tag: int) -> Request:
        """Start to sum the buffer over all ranks, in place, in any order of terms."""

    def broadcast(self, buffer: Array) -> None:
        """Copy rank 0's bytes into the buffers of all ranks."""

    def gather(self, thing: Any) -> list[Any]:
        """Return the objects of all ranks, in the order of ranks, on every rank."""


def wait(request: Request, limit: float) -> None:
    """Wait until the request is done; raise RankError if that takes more than `limit` seconds."""
    if request.test():
        return
    looked, passed = time.monotonic(), 0.0
    while not request.test():
        now = time.monotonic()
        looked, passed = now, passed + min(now - looked, _LONGEST)
        if passed > limit:
            raise RankError(
                f"{request.who()} has not answered for {limit:g} s",
                hint="it hangs or is slower than that; --timeout gives it longer",
            )
        if passed < _SPIN:
            os.sched_yield()
        else:
            time.sleep(_PAUSE)


class Solo:
    """The communicator of a process that is the only rank."""

    rank, size = 0, 1

    def __init__(self, limit: float = LIMIT) -> None:
        self.limit = limit

    def expect(self, sizes: Sequence[int]) -> None:
        """Do nothing: no message will come."""

    def swap(self, partner: int, out: Array, into: Array, tag: int) -> Swap:
        """Raise AssertionError: there is no partner."""
        raise AssertionError("a rank that is alone has no partner")

    def total(self, buffer: Array, tag: int) -> Request:
        """Leave the buffer as it is."""
        return DONE

    def broadcast(self, buffer: Array) -> None:
        """Do nothing: the only rank has the bytes."""

    def gather(self, thing: Any) -> list[Any]:
        """Return a list of the only rank's own object."""
        return [thing]


def ranks_of(given: Communicator | None) -> Communicator:
    """Return a communicator, Solo for None; raise StateError if it is another kind of object."""
    if given is None or isinstance(given, Communicator):
        return given or Solo()
    raise StateError(
        f"communicator is {type(given).__name__}, not one of graphc's",
        hint="from graphc.runtime.distributed.mpi import joined, and communicator=joined()",
    )


class Done:
    """A request that is done from the start."""

    def test(self) -> bool:
        """Return True."""
        return True

    def who(self) -> str:
        """Return "nobody"."""
        return "nobody"


DONE = Done()


class TreeSum:
    """The sum of a flat buffer over a power of two of ranks, in place; `test` advances it."""

    def __init__(self, comm: Communicator, buffer: Array, scratch: Array, tag: int) -> None:
        self._comm, self._buffer, self._scratch, self._tag = comm, buffer, scratch, tag
        self._partner = comm.rank
        small = buffer.nbytes <= SMALL
        self._stages = self._doubling() if small else self._halving()
        self._now: Swap | None = next(self._stages, None)

    def test(self) -> bool:
        """Begin the next stage if this one is done; return whether all stages are done."""
        while self._now is not None and self._now.test():
            self._now = next(self._stages, None)
        return self._now is None

    def who(self) -> str:
        """Return the name of the rank whose part is missing."""
        return f"rank {self._partner}"

    def _swap(self, distance: int, out: Array, into: Array) -> Swap:
        self._partner = self._comm.rank ^ distance
        return self._comm.swap(self._partner, out, into, self._tag)

    def _doubling(self) -> Iterator[Swap]:
        """Exchange the buffer with ranks 1, 2, 4, ... away, and add theirs."""
        distance = 1
        while distance < self._comm.size:
            swap = self._swap(distance, self._buffer, self._scratch)
            yield swap
            np.add(self._buffer, swap.arrived, out=self._buffer)
            distance *= 2

    def _halving(self) -> Iterator[Swap]:
        """Exchange halves of halves and add them; then exchange the sums in reverse order."""
        part, distance = self._buffer, 1
        shared: list[tuple[int, Array, Array]] = []
        while distance < self._comm.size:
            # If the length is odd the second half is longer: both ranks cut at the same place.
            half = len(part) // 2
            mine, other = part[:half], part[half:]
            if self._comm.rank & distance:
                mine, other = other, mine
            swap = self._swap(distance, other, self._scratch[: len(mine)])
            yield swap
            np.add(mine, swap.arrived, out=mine)
            shared.append((distance, mine, other))
            part, distance = mine, 2 * distance
        for distance, mine, other in reversed(shared):
            swap = self._swap(distance, mine, other)
            yield swap
            if swap.arrived is not other:
                np.copyto(other, swap.arrived)
