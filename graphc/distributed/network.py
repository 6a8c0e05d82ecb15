"""How long a sum over ranks takes on a network: by a ring, and by the tree that graphc uses.

A message of n bytes takes latency + n / bandwidth, of each rank in both directions at once; ranks
do not get in each other's way.  Both ways send 2 (p - 1) / p times the bytes from each of p
ranks.  A ring takes 2 (p - 1) messages one after the other, a tree 2 log2(p), or log2(p) for a
small buffer that it sends as a whole (Thakur, Rabenseifner and Gropp 2005).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, log2

from graphc.distributed.tree import SMALL


@dataclass(frozen=True, slots=True)
class Network:
    """Bytes a second that each rank sends and takes, and seconds until the first arrives."""

    bandwidth: float
    latency: float

    def ring(self, nbytes: int, ranks: int) -> float:
        """Seconds of a sum by a ring."""
        messages = 2 * (ranks - 1)
        return messages * (self.latency + nbytes / ranks / self.bandwidth)

    def tree(self, nbytes: int, ranks: int) -> float:
        """Seconds of a sum by halving and doubling; for other numbers than powers of two as for
        the next one, which MPI's own sums about do."""
        stages = ceil(log2(ranks))
        if nbytes <= SMALL:
            return stages * (self.latency + nbytes / self.bandwidth)
        moved = 2 * (1 - 0.5**stages) * nbytes
        return 2 * stages * self.latency + moved / self.bandwidth


WAYS: dict[str, Callable[[Network, int, int], float]] = {
    "tree": Network.tree,
    "ring": Network.ring,
}
