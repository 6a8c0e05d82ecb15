"""What ranks need of each other: a small protocol, whoever carries the bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Protocol

from graphc.errors import RankError
from graphc.op import Array

LIMIT = 300.0
"""Seconds after which a rank that does not answer is given up."""

_SPIN = 10e-3
_PAUSE = 100e-6
"""Seconds of looking again and again, and of sleeping between two looks from then on."""

_LONGEST = 1.0
"""The most seconds that count between two looks: more pass while the whole job is suspended."""


class Request(Protocol):
    """Something under way between ranks; its buffers are not touched until it is done."""

    def test(self) -> bool:
        """Push it on; whether it is done."""

    def who(self) -> str:
        """Whom it waits for, in words."""


class Swap(Request, Protocol):
    """A request that brings something."""

    @property
    def arrived(self) -> Array:
        """What has come, once it is done: until the partner's next but one message."""


class Communicator(Protocol):
    """A rank's view of all ranks.  All of them make the same calls in the same order."""

    rank: int
    size: int
    limit: float
    """Seconds after which `wait` gives up."""

    def expect(self, sizes: Sequence[int]) -> None:
        """Messages are to come with tags 0, 1, ... that are halves of buffers of these bytes."""

    def swap(self, partner: int, out: Array, into: Array, tag: int) -> Swap:
        """Give a partner some numbers and take others; `into` is where they may be put."""

    def total(self, buffer: Array, tag: int) -> Request:
        """The sum over all ranks in place of the buffer, in any order of terms."""

    def broadcast(self, buffer: Array) -> None:
        """Rank 0's bytes in the buffers of all."""

    def gather(self, thing: Any) -> list[Any]:
        """The things of all ranks, in their order, on every rank."""


def wait(request: Request, limit: float) -> None:
    """Return when it is done; RankError when it takes more than `limit` seconds."""
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
    """The only rank."""

    rank, size = 0, 1

    def __init__(self, limit: float = LIMIT) -> None:
        self.limit = limit

    def expect(self, sizes: Sequence[int]) -> None:
        """None will come."""

    def swap(self, partner: int, out: Array, into: Array, tag: int) -> Swap:
        """There is no partner."""
        raise AssertionError("a rank that is alone has no partner")

    def total(self, buffer: Array, tag: int) -> Request:
        """The buffer as it is."""
        return DONE

    def broadcast(self, buffer: Array) -> None:
        """All have it."""

    def gather(self, thing: Any) -> list[Any]:
        """What it has."""
        return [thing]


class Done:
    """A request that has nothing to do."""

    def test(self) -> bool:
        """It is done."""
        return True

    def who(self) -> str:
        """Nobody."""
        return "nobody"


DONE = Done()
