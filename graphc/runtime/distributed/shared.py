"""Messages between ranks of one machine, by memory that they share.

A rank copies its message to its own part of the memory and sends a byte by MPI; its partner reads
the message there.  MPI's own messages take longer, as they move in small pieces that both sides
have to advance; but messages larger than the caches are faster that way, since the pieces stay in
the caches.

Each pair of partners has two places in the memory of each for every bucket, used in turns.  A
place is written again only two messages later: by then the partner has answered the message
between, which it does after it has read the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.compiler.memory import align
from graphc.ir.op import Array
from graphc.runtime.distributed.tree import SMALL

LARGEST = 4 * 2**20
"""The most bytes of a message by shared memory; larger ones use MPI itself."""


class SharedMemory:
    """The memory of this rank and of the others on its machine, for buckets of `sizes` bytes."""

    def __init__(self, mpi: Any, node: Any, members: Sequence[int], sizes: Sequence[int]) -> None:
        """Allocate the memory; `members` are the world's ranks of the processes of `node`."""
        self._place = {rank: i for i, rank in enumerate(members)}
        self._offsets: list[int] = []
        end = 0
        for size in sizes:
            self._offsets.append(end)
            end += 2 * _part(size) * len(members)
        self._sizes = list(sizes)
        self._window = mpi.Win.Allocate_shared(end, 1, comm=node)
        self._window.Lock_all()
        self._memory: list[Array] = []
        for i in range(len(members)):
            data, _ = self._window.Shared_query(i)
            self._memory.append(np.frombuffer(data, np.uint8))
        self._turns: dict[tuple[int, int], int] = {}

    def serves(self, partner: int, tag: int, nbytes: int) -> bool:
        """Return whether a message of bucket `tag` to a partner uses shared memory."""
        known = partner in self._place and tag < len(self._sizes)
        return known and SMALL < nbytes <= _part(self._sizes[tag])

    def place(self, owner: int, other: int, tag: int, turn: int) -> Array:
        """Return the memory where the owner leaves its message to the other rank."""
        part = _part(self._sizes[tag])
        start = self._offsets[tag] + (2 * self._place[other] + turn) * part
        return self._memory[self._place[owner]][start : start + part]

    def next_turn(self, partner: int, tag: int) -> int:
        """Return the index, 0 or 1, of the place to use next, and switch to the other one."""
        turn = self._turns.get((partner, tag), 0)
        self._turns[partner, tag] = 1 - turn
        return turn

    def sync(self) -> None:
        """Make earlier writes visible to other ranks, and theirs visible here, after a message."""
        self._window.Sync()

    def free(self) -> None:
        """Free the memory, on all ranks of the machine together."""
        self._memory.clear()
        self._window.Unlock_all()
        self._window.Free()


def _part(size: int) -> int:
    """Return the most bytes of a message of a bucket by this way: the bucket's larger half."""
    half = align(size // 2 + 8)
    return half if half <= LARGEST else 0
