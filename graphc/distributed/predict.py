"""The step of many ranks, predicted from the work of one and what the network can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from graphc.distributed.network import WAYS, Network
from graphc.distributed.timeline import Timeline, timeline
from graphc.plan import Plan

MEASURED = 0.6
"""Seconds that each number of ranks is measured for."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A step on so many ranks; all times in seconds."""

    ranks: int
    rows: int
    """Those of a rank, or of the rank with the most."""
    work: float
    """The step without the time of messages."""
    exchange: float
    """The messages of all buckets, one after the other."""
    step: float
    """The step when messages travel while ranks work."""
    blocking: float
    """The step when they do not, as on one machine, whose cores carry them."""

    @property
    def hidden(self) -> float:
        """The part of the exchange that costs no time."""
        return 1 - (self.step - self.work) / self.exchange if self.exchange else 1.0


def predict(
    make: Callable[[int], Plan],
    feeds: Mapping[str, Any],
    network: Network,
    ranks: Iterable[int],
    seconds: float | None = None,
) -> dict[str, list[Prediction]]:
    """For the ring and the tree a prediction for each number of ranks.

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
    """A step whose buckets travel one after the other, each from when it is sent on."""
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
    """1, 2, 4, ... and the number itself."""
    powers = [2**k for k in range(most.bit_length()) if 2**k < most]
    return [*powers, most]
