"""A step cut into shards: those of a rank run one after the other, or all of them in step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from graphc.backends.backend import Call
from graphc.ir.plan import Plan, Program
from graphc.runtime.bound import Binder, Bound
from graphc.runtime.exchange import HOLDS, Exchange, Pause
from graphc.runtime.feeds import FeedCheck
from graphc.runtime.shards import Part, Shards

Load = Callable[[Program, Mapping[str, Any]], Bound]
Run = Callable[[list[Call]], None]


class ShardedStep:
    """A step of a rank, cut into its shards; the last shard's program updates the state."""

    def __init__(
        self,
        plan: Plan,
        last: Program,
        check: FeedCheck,
        exchange: Exchange,
        load: Load,
        run: Run,
    ) -> None:
        """Prepare the shards; `load` feeds a program in the executor's own memory, `run` calls."""
        self._exchange, self._check, self._load, self._run = exchange, check, load, run
        self._shards = Shards(plan, last, check, exchange.communicator.rank)
        several = plan.lanes > 1
        self._programs = [*([plan.programs[HOLDS]] * (plan.lanes - 1) if several else ()), last]
        self._binders = [Binder(workspace, exchange) for workspace in exchange.workspaces]

    def __call__(self, feeds: Mapping[str, Any]) -> tuple[Bound, Iterable[Call]]:
        """Run all shards of a batch but the last; return the last program and the calls left.

        Raise FeedError, before anything is written, for a wrong batch.
        """
        parts = self._shards.parts(feeds)
        return self._in_step(parts) if self._binders else self._in_turn(parts)

    def _in_turn(self, parts: Iterator[Part]) -> tuple[Bound, Iterable[Call]]:
        """Run the shards one after the other, each in the memory of the one before."""
        last = len(self._programs) - 1
        for lane, (program, part) in enumerate(zip(self._programs, parts, strict=True)):
            bound = self._load(program, part.feeds)
            part.put(bound.feeds)
            self._exchange.lane = lane
            if lane < last:
                self._run(bound.calls)
        return bound, bound.calls

    def _in_step(self, parts: Iterator[Part]) -> tuple[Bound, Iterable[Call]]:
        """Run each shard in its own memory; all wait wherever one needs a sum over all of them."""
        given = list(parts)
        bounds = [self._bound(*each) for each in zip(self._binders, given, strict=False)]
        bounds.append(self._load(self._programs[-1], given[-1].feeds))
        for part, bound in zip(given, bounds, strict=True):
            part.put(bound.feeds)
        return bounds[-1], [partial(self._together, bounds)]

    def _bound(self, binder: Binder, part: Part) -> Bound:
        arrays, n = self._check.arrays(part.feeds)
        bound = binder.bound(self._programs[0], n)
        bound.feed(arrays)
        return bound

    def _together(self, bounds: list[Bound]) -> None:
        runs = [iter(bound.calls) for bound in bounds]
        while True:
            pauses = [self._until_pause(lane, run) for lane, run in enumerate(runs)]
            reached = [pause for pause in pauses if pause is not None]
            if not reached:
                return
            self._exchange.total(reached)

    def _until_pause(self, lane: int, run: Iterator[Call]) -> Pause | None:
        """Make a shard's calls up to the next sum that it needs; return that, None at the end."""
        self._exchange.lane = lane
        for call in run:
            if isinstance(call, Pause):
                return call
            call()
        return None
