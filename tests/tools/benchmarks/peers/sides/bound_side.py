"""The bound: the products' flops at the peak of the machine, measured in the same run."""

from __future__ import annotations

from graphc.view.measure import flop_rate, how
from tests.tools.benchmarks.peers.sides.side import Side


class Bound(Side):
    """No peer, and no net: each turn measures the rate of multiply-adds anew."""

    def versions(self) -> str:
        return how()

    def flops_a_second(self, seconds: float) -> float:
        """The rate over some time."""
        return flop_rate(self.threads, seconds)
