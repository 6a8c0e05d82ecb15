"""The time of a sum over ranks on a network: by a ring, and by the tree that graphc uses.

A message of n bytes takes latency + n / bandwidth, of each rank in both directions at once; ranks
do not get in each other's way.  Both ways send 2 (p - 1) / p times the bytes from each of p
ranks.  A ring takes 2 (p - 1) messages one after the other, a tree 2 log2(p), or log2(p) for a
small buffer that it sends as a whole (Thakur, Rabenseifner and Gropp 2005).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, log2

from graphc.runtime.distributed.tree import SMALL


@dataclass(frozen=True, slots=True)
class Network:
    """A network: bytes per second that each rank sends and receives, and seconds of latency."""

    bandwidth: float
    latency: float

    def ring(self, nbytes: int, ranks: int) -> float:
        """Return the seconds of a sum by a ring."""
        messages = 2 * (ranks - 1)
        return messages * (self.latency + nbytes / ranks / self.bandwidth)

    def tree(self, nbytes: int, ranks: int) -> float:
        """Return the seconds of a sum by halving and doubling.

        A number of ranks that is not a power of two counts as the next power, which is about right
        for MPI's own sums.
        """
        stages = ceil(log2(ranks))
        if nbytes <= SMALL:
            return stages * (self.latency + nbytes / self.bandwidth)
        moved = 2 * (1 - 0.5**stages) * nbytes
        return 2 * stages * self.latency + moved / self.bandwidth


WAYS: dict[str, Callable[[Network, int, int], float]] = {
    "tree": Network.tree,
    "ring": Network.ring,
}
