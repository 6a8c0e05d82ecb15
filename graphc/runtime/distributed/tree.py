"""Sums over ranks in a fixed order, so that their bits do not depend on how ranks share shards.

The sums of ranks 0 and 1, 2 and 3, ... are added first, then those of pairs of pairs.  So the sum
over all shards is one balanced tree, whether a rank adds up a part of it alone or with others:

    ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))

Large buffers use recursive halving and doubling: in each stage two ranks share the work of adding
their sums, and exchange the halves at the end (Rabenseifner 2004), so that 2 (p - 1) / p times the
bytes leave each of p ranks.  Small ones use recursive doubling, in half as many messages.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphc.ir.op import Array
from graphc.runtime.distributed.communicator import Communicator, Swap

SMALL = 4096
"""The most bytes of a buffer whose time depends on the number of messages, not on their size."""


def is_power_of_two(number: int) -> bool:
    """Return whether the number is 1, 2, 4, 8, ..."""
    return number > 0 and number & (number - 1) == 0


def room(elements: int, itemsize: int) -> int:
    """Return how many elements of scratch the sum of a buffer needs."""
    return elements if elements * itemsize <= SMALL else elements - elements // 2


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
        distance = 1
        while distance < self._comm.size:
            swap = self._swap(distance, self._buffer, self._scratch)
            yield swap
            np.add(self._buffer, swap.arrived, out=self._buffer)
            distance *= 2

    def _halving(self) -> Iterator[Swap]:
        part, distance = self._buffer, 1
        shared: list[tuple[int, Array, Array]] = []
        while distance < self._comm.size:
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
