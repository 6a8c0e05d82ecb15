"""A step cut into shards: the rows of each, and how a rank runs its shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from graphc.backends.backend import Call
from graphc.base.errors import FeedError, StateError, counted
from graphc.compiler.loss_share import SUM, divisors
from graphc.compiler.plan import Plan, program_name
from graphc.compiler.sharding import workspaces
from graphc.ir.op import Array
from graphc.kernels.program import Program
from graphc.runtime.bound import Binder, Bound
from graphc.runtime.distributed.communicator import Communicator, ranks_of
from graphc.runtime.distributed.exchange import SHARD, Exchange, Pause
from graphc.runtime.feeds import FeedCheck, program_check
from graphc.runtime.row_axis import rows_of
from graphc.runtime.state import State
from graphc.runtime.workspace import Workspace

Load = Callable[[str, Mapping[str, Any]], Bound]
"""A function that feeds the program of that name in the executor's memory."""
Run = Callable[[list[Call]], None]


class Part(NamedTuple):
    """The rows of a shard by input, and the numbers that describe it."""

    feeds: dict[str, Array]
    numbers: dict[str, float]

    def put(self, feeds: Mapping[str, Array]) -> None:
        """Write the numbers that a program reads into its feeds."""
        for name, number in self.numbers.items():
            if name in feeds:
                feeds[name][...] = number


class Shards:
    """Cuts batches into the shards of one rank: near-equal runs of rows, the larger ones first.

    If there are fewer rows than shards, the shards without any run on the first row, with weight 0.
    """

    def __init__(self, plan: Plan, program: Program, check: FeedCheck, rank: int) -> None:
        self._plan, self._check, self._shards = plan, check, plan.shards or 1
        self._mine = range(rank * plan.lanes, (rank + 1) * plan.lanes)
        self._types = {name: plan.declared[name].type for name in plan.input_names}
        shard_inputs = [node for node in program.graph if node.op.is_of_shard]
        self._numbers = {node.name: node.op.role for node in shard_inputs}
        self._divisors = {d.name: d for d in divisors(plan.declared) if d.name in self._numbers}

    def parts(self, feeds: Mapping[str, Any]) -> Iterator[Part]:
        """Yield this rank's shards of a batch in order; raise FeedError for 0 or too many rows."""
        arrays, n = self._check.counted(feeds)
        if not 0 < n <= self._plan.rows:
            raise FeedError(
                f"the batch has {n} rows, a step of the plan takes 1 to {self._plan.rows}",
                hint=f"compile with batch={n}" if n else "a run takes at least one row",
            )
        divisors = {name: self._divisor(name, arrays, n) for name in self._divisors}
        for shard in self._mine:
            start, stop = bounds(n, self._shards, shard)
            numbers = {k: self._number(k, divisors, (start, stop), n) for k in self._numbers}
            yield Part(self._rows(arrays, *((start, stop) if stop > start else (0, 1))), numbers)

    def _rows(self, arrays: Mapping[str, Array], start: int, stop: int) -> dict[str, Array]:
        return {
            k: rows_of(array, self._types[k], slice(start, stop)) for k, array in arrays.items()
        }

    def _divisor(self, name: str, feeds: Mapping[str, Array], n: int) -> float:
        """Return the divisor of a weighted mean over all rows."""
        # Summed shard by shard on every rank, so that all have the same bits whatever their number.
        total, divisor = 0.0, self._divisors[name]
        read = {k: feeds[k] for k in divisor.inputs}
        for shard in range(self._shards):
            start, stop = bounds(n, self._shards, shard)
            if stop > start:
                total += divisor(self._rows(read, start, stop), stop - start)
        return total

    def _number(
        self, name: str, divisors: Mapping[str, float], rows: tuple[int, int], n: int
    ) -> float:
        """Return the shard's first row, its share of the rows, or that share of a mean's divisor.

        The share of a sum is 1, or 0 if the shard has no rows.
        """
        (start, stop), role = rows, self._numbers[name]
        if role.kind == "divisor":
            return divisors[name] * (stop - start) / n if stop > start else 1.0
        if role.kind == "first_row":
            return start
        return float(stop > start) if role.part == SUM else (stop - start) / n


def bounds(n: int, shards: int, shard: int) -> tuple[int, int]:
    """Return the rows of a shard of a batch of `n`, as (first, end)."""
    size, more = divmod(n, shards)
    start = shard * size + min(shard, more)
    return start, start + size + (shard < more)


class ShardedStep:
    """A step of a rank, cut into its shards; the last shard's program updates the state."""

    def __init__(self, plan: Plan, communicator: Communicator, state: State) -> None:
        self._plan, self._last = plan, program_name(plan)
        last = plan.programs[self._last]
        self.communicator = communicator
        self.exchange = Exchange(plan, communicator)
        self._check = program_check(last, plan)
        self._shards = Shards(plan, last, self._check, communicator.rank)
        self._workspaces = [
            Workspace(plan.programs, plan.batch, state, plan.options.threads)
            for _ in range(workspaces(plan) - 1)
        ]
        """The memory of all shards of a rank but the last, if they run in lockstep."""
        self._binders = [Binder(workspace, self.exchange) for workspace in self._workspaces]

    @property
    def nbytes(self) -> int:
        """The bytes of the exchange and of the shards' own memory."""
        return self.exchange.nbytes + sum(workspace.nbytes for workspace in self._workspaces)

    def rank_rows(self, n: int) -> tuple[int, int]:
        """Return the rows of a batch of `n` that this rank's shards run on, as (first, end)."""
        shards, lanes = self._plan.shards or 1, self._plan.lanes
        first = self.communicator.rank * lanes
        start, stop = bounds(n, shards, first)[0], bounds(n, shards, first + lanes - 1)[1]
        return (start, stop) if stop - start >= lanes else (0, stop)

    def __call__(
        self, feeds: Mapping[str, Any], load: Load, run: Run
    ) -> tuple[Bound, Iterable[Call]]:
        """Run all shards of a batch but the last; return the last program and the calls left.

        Raise FeedError, before anything is written, for a wrong batch.
        """
        self.exchange.drop()
        parts = self._shards.parts(feeds)
        return self._in_lockstep(parts, load) if self._binders else self._serially(parts, load, run)

    def _serially(
        self, parts: Iterator[Part], load: Load, run: Run
    ) -> tuple[Bound, Iterable[Call]]:
        """Run the shards one after the other, all in the memory of the executor."""
        last = self._plan.lanes - 1
        for lane, part in enumerate(parts):
            bound = load(SHARD if lane < last else self._last, part.feeds)
            part.put(bound.feeds)
            self.exchange.lane = lane
            if lane < last:
                run(bound.calls)
        return bound, bound.calls

    def _in_lockstep(self, parts: Iterator[Part], load: Load) -> tuple[Bound, Iterable[Call]]:
        """Run each shard in separate memory; all wait where one needs a sum over all of them."""
        given = list(parts)
        bounds = [self._bound(*each) for each in zip(self._binders, given, strict=False)]
        bounds.append(load(self._last, given[-1].feeds))
        for part, bound in zip(given, bounds, strict=True):
            part.put(bound.feeds)
        return bounds[-1], [partial(self._together, bounds)]

    def _bound(self, binder: Binder, part: Part) -> Bound:
        arrays, n = self._check.arrays(part.feeds)
        bound = binder.bound(self._plan.programs[SHARD], n)
        bound.feed(arrays)
        return bound

    def _together(self, bounds: list[Bound]) -> None:
        runs = [iter(bound.calls) for bound in bounds]
        while True:
            pauses = [self._until_pause(lane, run) for lane, run in enumerate(runs)]
            reached = [pause for pause in pauses if pause is not None]
            if not reached:
                return
            self.exchange.total(reached)

    def _until_pause(self, lane: int, run: Iterator[Call]) -> Pause | None:
        """Make a shard's calls up to the next sum that it needs; return that, None at the end."""
        self.exchange.lane = lane
        for call in run:
            if isinstance(call, Pause):
                return call
            call()
        return None


def sharded_step(plan: Plan, communicator: Communicator | None, state: State) -> ShardedStep | None:
    """Return the step of a plan with shards, else None; raise StateError if the ranks differ."""
    ranks, given = plan.ranks, ranks_of(communicator)
    size = given.size
    if size != ranks:
        raise StateError(
            f"the plan is for {counted(ranks, 'rank')}, the communicator has {size}",
            hint="gc.compile(net, ..., ranks=n) and gc.Executor(plan, communicator=c) go together",
        )
    return None if plan.shards is None else ShardedStep(plan, given, state)
