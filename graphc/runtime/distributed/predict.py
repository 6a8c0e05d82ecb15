"""Predict the time of a step on many ranks from one rank's work and the speed of the network.

The times at which a step sends and awaits its buckets are measured without any other rank.  On the
network a message of n bytes takes latency + n / bandwidth; each rank sends and receives at once,
and ranks do not slow each other down.  A ring and the tree that graphc uses both send 2 (p - 1) / p
times the bytes from each of p ranks.  A ring takes 2 (p - 1) messages one after the other, a tree
2 log2(p), or log2(p) for a small buffer that it sends as a whole (Thakur, Rabenseifner and Gropp
2005).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import ceil, log2
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from graphc.backends.backend import Call
from graphc.compiler.plan import Plan, program_name
from graphc.compiler.sharding import SMALL
from graphc.ir.op import Array
from graphc.kernels.program import Instr
from graphc.runtime.bound import Binder
from graphc.runtime.distributed.communicator import Done, Solo, Swap
from graphc.runtime.distributed.exchange import joined
from graphc.runtime.distributed.step import Shards
from graphc.runtime.entry import quiet_context, run_all
from graphc.runtime.executor import Executor
from graphc.runtime.feeds import program_check
from graphc.runtime.state import State
from graphc.runtime.workspace import Workspace


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


class Instant(Solo):
    """A communicator for rank 0 of `size`, whose partners answer at once with what is there."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def swap(self, partner: int, out: Array, into: Array, tag: int) -> Swap:
        """Return a finished request, as if what `into` holds had arrived."""
        return _Arrived(into)

    def gather(self, thing: Any) -> list[Any]:
        """Return this rank's object once for each rank."""
        return [thing] * self.size


class _Arrived(Done):
    def __init__(self, into: Array) -> None:
        self.arrived = into


@dataclass(frozen=True, slots=True)
class Event:
    """The send or the receive of a bucket, `after` seconds of work since the previous event."""

    kind: str
    bucket: int
    nbytes: int
    after: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """The work of a step between its exchanges, the additions of received sums included."""

    events: tuple[Event, ...]
    rest: float
    """Seconds from the last event to the end."""

    @property
    def seconds(self) -> float:
        """The seconds of the step if the exchange takes no time."""
        return sum(event.after for event in self.events) + self.rest


def timeline(plan: Plan, feeds: Mapping[str, Any], seconds: float) -> Timeline:
    """Measure a rank's step of a plan for about `seconds` seconds; `feeds` are a whole batch."""
    whole = _whole(plan, feeds, seconds / 2)
    if plan.shards is None:
        return Timeline((), whole)
    marks = _Marks()
    durations = _durations(plan, feeds, marks, seconds / 2)
    scale = whole / sum(durations)  # spread the time outside the program, and of additions, over it
    first = marks.found[: len(durations) - 1]
    events = [
        Event(kind, bucket, nbytes, scale * duration)
        for (kind, bucket, nbytes, _), duration in zip(first, durations, strict=False)
    ]
    return Timeline(tuple(events), scale * durations[-1])


def _whole(plan: Plan, feeds: Mapping[str, Any], seconds: float) -> float:
    """Return the seconds of an executor's step; with several ranks, of the slowest of them.

    Of p ranks whose steps are drawn from the times measured, the slowest takes in the median what
    one takes with the probability 0.5 ** (1 / p).
    """
    ex = Executor(plan, communicator=Instant(plan.ranks))
    ex.step(feeds)
    times: list[float] = []
    begin = perf_counter()
    while len(times) < 3 or perf_counter() - begin < seconds:
        start = perf_counter()
        ex.step(feeds)
        times.append(perf_counter() - start)
    return float(np.quantile(times, 0.5 ** (1 / plan.ranks)))


class _Marks:
    """A substitute for the exchange that records when each bucket is sent and awaited."""

    def __init__(self) -> None:
        self.found: list[tuple[str, int, int, float]] = []

    def calls(self, program: str, instr: Instr, arrays: Sequence[Array]) -> tuple[Call, ...]:
        """Return a call that records the time."""
        bucket = int(getattr(instr.op, "bucket", 0))
        return (partial(self._note, instr.kind, bucket, joined(arrays).nbytes),)

    def poke(self) -> None:
        """Do nothing: no request is in progress."""

    def _note(self, kind: str, bucket: int, nbytes: int) -> None:
        self.found.append((kind, bucket, nbytes, perf_counter()))


def _durations(plan: Plan, feeds: Mapping[str, Any], marks: _Marks, seconds: float) -> list[float]:
    """Return the medians of the times from the start to each mark, and from the last to the end."""
    program = plan.programs[program_name(plan)]
    state = State(plan.state_nodes)
    workspace = Workspace(plan.programs, plan.batch, state, plan.options.threads)
    check = program_check(program, plan)
    part = next(Shards(plan, program, check, 0).parts(feeds))
    arrays, n = check.arrays(part.feeds)
    bound = Binder(workspace, marks).bound(program, n)
    bound.feed(arrays)
    part.put(bound.feeds)
    quiet, found = quiet_context(), list[list[float]]()
    quiet.run(run_all, bound.calls)
    begin = perf_counter()
    while len(found) < 3 or perf_counter() - begin < seconds:
        marks.found.clear()
        start = perf_counter()
        quiet.run(run_all, bound.calls)
        times = [start, *(mark[3] for mark in marks.found), perf_counter()]
        found.append([b - a for a, b in pairwise(times)])
    return [median(column) for column in zip(*found, strict=True)]


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

    `make` compiles the plan for a number of ranks; `feeds` are a batch of all rows.
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
    """Return the seconds of a step if buckets are sent one by one, each once it is ready."""
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
    return [*[2**k for k in range(most.bit_length()) if 2**k < most], most]
