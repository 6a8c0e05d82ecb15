"""Predict the step of many ranks from one rank's work and the speed of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from graphc.ir.plan import Plan
from graphc.runtime.distributed.network import WAYS, Network
from graphc.runtime.distributed.timeline import Timeline, timeline

MEASURED = 0.6
"""Seconds of measurement for each number of ranks."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The predicted step on `ranks` ranks; all times are in seconds."""

    ranks: int
    rows: int
    """The rows of a rank, or of the rank with the most rows."""
    work: float
    """The step without the time of messages."""
    exchange: float
    """The time of the messages of all buckets, one after the other."""
    step: float
    """The step if messages travel while ranks work."""
    blocking: float
    """The step if messages do not overlap with work, as on one machine, whose cores carry them."""

    @property
    def hidden(self) -> float:
        """The fraction of the exchange that overlaps with work and so costs no time."""
        return 1 - (self.step - self.work) / self.exchange if self.exchange else 1.0


def predict(
    make: Callable[[int], Plan],
    feeds: Mapping[str, Any],
    network: Network,
    ranks: Iterable[int],
    seconds: float | None = None,
) -> dict[str, list[Prediction]]:
    """Return, for the ring and for the tree, a prediction for each number of ranks.

    `make` compiles the plan for so many ranks; `feeds` are a batch of all rows.
    """
    found: dict[str, list[Prediction]] = {way: [] for way in WAYS}
    for size in ranks:
        plan = make(size)
        line = timeline(plan, feeds, MEASURED if seconds is None else seconds)
        for way in WAYS:
            found[way].append(_predicted(plan, line, network, way))
    return found


def _predicted(plan: Plan, line: Timeline, network: Network, way: str) -> Prediction:
    def takes(nbytes: int) -> float:
        return WAYS[way](network, nbytes, plan.ranks)

    sizes = {event.bucket: event.nbytes for event in line.events}
    exchange = sum(map(takes, sizes.values()))
    work = line.seconds
    return Prediction(plan.ranks, plan.batch, work, exchange, _step(line, takes), work + exchange)


def _step(line: Timeline, takes: Callable[[int], float]) -> float:
    """Return the seconds of a step whose buckets travel one by one, each from when it is sent."""
    now = free = 0.0
    arrives: dict[int, float] = {}
    for event in line.events:
        now += event.after
        if event.kind == "send":
            arrives[event.bucket] = free = max(now, free) + takes(event.nbytes)
        else:
            now = max(now, arrives[event.bucket])
    return now + line.rest


def counts(most: int) -> list[int]:
    """Return 1, 2, 4, ... below `most`, and `most` itself."""
    powers = [2**k for k in range(most.bit_length()) if 2**k < most]
    return [*powers, most]
