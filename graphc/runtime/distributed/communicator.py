"""The small protocol by which ranks communicate, whatever carries the bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Protocol

from graphc.base.errors import RankError
from graphc.ir.op import Array

LIMIT = 300.0
"""Seconds without an answer after which a rank is taken for lost."""

_SPIN = 10e-3
_PAUSE = 100e-6
"""Seconds of polling without a pause, and of sleep between two polls from then on."""

_LONGEST = 1.0
"""The most seconds that count between two polls: more pass while the whole job is suspended."""


class Request(Protocol):
    """An operation in progress between ranks; its buffers are not touched until it is done."""

    def test(self) -> bool:
        """Advance the operation and return whether it is done."""

    def who(self) -> str:
        """Return whom it waits for, as text for a report."""


class Swap(Request, Protocol):
    """A request that receives an array."""

    @property
    def arrived(self) -> Array:
        """The array received once the request is done; the next message but one overwrites it."""


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
        """Start the sum of the buffer over all ranks, in place, in any order of terms."""

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


class Done:
    """A request that is done from the start."""

    def test(self) -> bool:
        """Return True."""
        return True

    def who(self) -> str:
        """Return "nobody"."""
        return "nobody"


DONE = Done()
