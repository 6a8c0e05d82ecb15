"""The times at which a step sends and awaits its buckets, measured without any other rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from graphc.backends.backend import Call
from graphc.ir.op import Array
from graphc.ir.plan import Instr, Plan
from graphc.runtime.bound import Binder
from graphc.runtime.distributed.communicator import DONE, LIMIT, Done, Request, Swap
from graphc.runtime.entry import quiet_context
from graphc.runtime.exchange import joined
from graphc.runtime.executor import Executor
from graphc.runtime.feeds import program_check
from graphc.runtime.run_all import run_all
from graphc.runtime.shards import Shards
from graphc.runtime.state import State
from graphc.runtime.workspace import Workspace
from graphc.view.profile.times import program_name


class Instant:
    """A communicator for the first of `size` ranks, whose partners answer at once, with zeros."""

    rank, limit = 0, LIMIT

    def __init__(self, size: int) -> None:
        self.size = size

    def expect(self, sizes: Sequence[int]) -> None:
        """Do nothing: there is nothing to prepare."""

    def swap(self, partner: int, out: Array, into: Array, tag: int) -> Swap:
        """Return a finished request, as if what `into` holds had arrived."""
        return _Arrived(into)

    def total(self, buffer: Array, tag: int) -> Request:
        """Leave the buffer as it is."""
        return DONE

    def broadcast(self, buffer: Array) -> None:
        """Do nothing: this rank has the bytes."""

    def gather(self, thing: Any) -> list[Any]:
        """Return this rank's object once for each rank."""
        return [thing] * self.size


class _Arrived(Done):
    def __init__(self, into: Array) -> None:
        self.arrived = into


@dataclass(frozen=True, slots=True)
class Event:
    """The sending or awaiting of a bucket, `after` seconds of work since the event before."""

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
    spans = _spans(plan, feeds, marks, seconds / 2)
    scale = whole / sum(spans)  # spread the time outside the program, and of additions, over it
    first = marks.found[: len(spans) - 1]
    events = [
        Event(kind, bucket, nbytes, scale * span)
        for (kind, bucket, nbytes, _), span in zip(first, spans, strict=False)
    ]
    return Timeline(tuple(events), scale * spans[-1])


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
    """A substitute for an exchange that records when each bucket would be sent and awaited."""

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


def _spans(plan: Plan, feeds: Mapping[str, Any], marks: _Marks, seconds: float) -> list[float]:
    """Return the medians of the times from the start to each mark, and from the last to the end."""
    program = plan.programs[program_name(plan)]
    state = State(plan.state_nodes)
    workspace = Workspace(plan.programs, plan.batch, state, plan.recipe.threads)
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
