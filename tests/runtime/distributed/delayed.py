"""Ranks on a network that is made slower: a message takes a latency and its bytes' time."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

from graphc.ir.op import Array
from graphc.runtime.distributed.communicator import Communicator, Request, Swap
from graphc.runtime.distributed.predict import Network


class Delayed:
    """A communicator whose messages arrive no sooner than a network would let them.

    What a rank sends goes out one after the other, as over one cable.
    """

    def __init__(self, inner: Communicator, network: Network) -> None:
        self._inner, self._network = inner, network
        self.rank, self.size, self.limit = inner.rank, inner.size, inner.limit
        self._free = 0.0

    def expect(self, sizes: Sequence[int]) -> None:
        self._inner.expect(sizes)

    def swap(self, partner: int, out: Array, into: Array, tag: int) -> Swap:
        start = max(perf_counter(), self._free)
        self._free = start + out.nbytes / self._network.bandwidth
        due = self._free + self._network.latency
        return _Due(self._inner.swap(partner, out, into, tag), due)

    def total(self, buffer: Array, tag: int) -> Request:
        return self._inner.total(buffer, tag)

    def broadcast(self, buffer: Array) -> None:
        self._inner.broadcast(buffer)

    def gather(self, thing: Any) -> list[Any]:
        return self._inner.gather(thing)


class _Due:
    def __init__(self, inner: Swap, due: float) -> None:
        self._inner, self._due = inner, due

    def test(self) -> bool:
        return self._inner.test() and perf_counter() >= self._due

    def who(self) -> str:
        return self._inner.who()

    @property
    def arrived(self) -> Array:
        return self._inner.arrived
