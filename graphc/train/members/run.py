"""The training of a population: all members in step, until each has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from time import perf_counter
from typing import Any

import numpy as np

from graphc.base.errors import FeedError
from graphc.ir.op import Array
from graphc.runtime.executor import Executor
from graphc.runtime.members.population import Population
from graphc.runtime.rows import Count
from graphc.train.callbacks import Epoch, begin
from graphc.train.history import Histories, Progress
from graphc.train.members.checkpoints import PopulationCheckpoints
from graphc.train.members.member import Member
from graphc.train.members.rows import Rows, Shares, arrays_of_rows, order
from graphc.train.run import StepBoundary
from graphc.train.source import Source

LONG = 0.1
"""The seconds of a call from which it makes fewer steps: an interrupt waits for it."""


class MemberEpoch(Epoch):
    """A finished epoch of a member, whose executor is made if a callback asks for it."""

    def __init__(self, population: Population, member: Member) -> None:
        object.__setattr__(self, "history", member.history)
        object.__setattr__(self, "steps", member.at.steps)
        object.__setattr__(self, "_of", (population, member.number))

    @property
    def ex(self) -> Executor:
        """The executor of the member."""
        population, number = self._of  # type: ignore[attr-defined]
        executor: Executor = population[number]
        return executor


Running = Callable[[], list[Member]]
"""A function that returns the members that still run."""
Counted = tuple[Sequence[int], Sequence[float]]
"""The numbers of rows of a member's steps, and the weights of their losses."""


class SharedRows:
    """Steps in which all members take the same batch."""

    def __init__(self, population: Population, source: Source) -> None:
        self._population, self._source = population, source
        self._count = Count.of_steps(population.plan)
        self.rows = source.rows

    def steps(self, epoch: int, running: Running) -> Iterator[int]:
        """Make the steps of an epoch, and yield the rows of each."""
        population, own = self._population, self._count.reads_state
        for n, given in self._source.batches(epoch):
            members, feeds = running(), population[0].padded(given)
            if not members:
                return
            numbers = [member.number for member in members]
            states = [population[i].state.arrays for i in (numbers if own else numbers[:1])]
            shares = [self._count(feeds, n, state) for state in states]
            losses = population.step(feeds, members=numbers).tolist()
            for member, loss, share in zip(members, losses, cycle(shares), strict=False):
                member.count([n], [loss], [share])
            yield n


class OwnRows:
    """Steps in which each member takes a batch of its own rows, of arrays that all share.

    Several are one call, which spares time between them; it is short, for what waits until then.
    """

    def __init__(
        self,
        population: Population,
        arrays: Mapping[str, Any],
        members: Sequence[Member],
        batch: int,
    ) -> None:
        self._population, self._batch = population, batch
        self.arrays = arrays_of_rows(population.plan, arrays)
        self._shares = Shares(population.plan, self.arrays)
        self._known: dict[int, Counted] = {}
        self._steps = 1
        self.rows = sum(len(member.rows) for member in members if member.rows is not None)

    def steps(self, epoch: int, running: Running) -> Iterator[int]:
        """Make the steps of an epoch, and yield the rows of some of them after each call.

        Members with fewer rows end it earlier.
        """
        orders = self._orders(running())
        start, most = 0, max(map(len, orders.values()), default=0)
        while start < most:
            members = [member for member in running() if start < len(orders[member.number])]
            if not members:
                return
            begun, end = perf_counter(), start + self._steps * self._batch
            chosen = [orders[member.number][start:end] for member in members]
            self._make(members, chosen)
            self._pace(perf_counter() - begun, most)
            start = end
            yield sum(map(len, chosen))

    def _make(self, members: Sequence[Member], chosen: Sequence[Rows]) -> None:
        """Make the steps of members on their rows."""
        counted = [self._counted(*pair) for pair in zip(members, chosen, strict=True)]
        numbers = [member.number for member in members]
        losses = self._population.steps(
            self.arrays, rows=chosen, batch=self._batch, members=numbers
        )
        for member, made, (counts, shares) in zip(members, losses, counted, strict=True):
            member.count(counts, made.tolist(), shares)

    def _pace(self, seconds: float, most: int) -> None:
        """Choose the number of steps of the next turn by the time of this one."""
        if seconds > LONG:
            self._steps = max(1, self._steps // 2)
        elif (
            seconds < LONG / 2 and self._steps * self._batch < most and not self._shares.reads_state
        ):
            self._steps *= 2

    def _orders(self, members: Sequence[Member]) -> dict[int, Rows]:
        """Return the rows of members in their order; those with the same seed share it."""
        found: dict[tuple[object, ...], Rows] = {}
        shuffled = cache(order)
        for member in members:
            rows, seed, epoch = member.rows, member.seed, member.at.epoch
            assert rows is not None
            if (key := (id(rows), seed, epoch)) not in found:
                found[key] = rows if seed is None else rows[shuffled(len(rows), seed, epoch)]
        return {m.number: found[id(m.rows), m.seed, m.at.epoch] for m in members}

    def _counted(self, member: Member, rows: Rows) -> Counted:
        """Return the numbers of rows of a member's steps, and the weights of their losses."""
        known, by_number = self._known, self._shares.by_number
        if by_number and len(rows) in known:
            return known[len(rows)]
        pieces = [rows[i : i + self._batch] for i in range(0, len(rows), self._batch)]
        state = self._population[member.number].state.arrays if self._shares.reads_state else {}
        found = list(map(len, pieces)), [self._shares(piece, state) for piece in pieces]
        if by_number:
            known[len(rows)] = found
        return found


@dataclass
class PopulationRun:
    """A training run of all members; each ends by itself, and costs nothing from then on."""

    population: Population
    members: Sequence[Member]
    data: SharedRows | OwnRows
    validation: Mapping[str, Any] | None = None
    """The arrays that members validate on, all rows of them or those that each holds."""
    checkpoints: PopulationCheckpoints | None = None

    def train(self, progress: bool | None) -> Histories:
        """Train to the last epoch of each member; Ctrl-C takes effect after a step."""
        for member in self.members:
            begin(member.callbacks, member.history, member.saved)
        self._watched, self._losses = self._finite(), self.population.plan.losses
        epochs = max((member.epochs for member in self.members), default=0)
        interrupts = StepBoundary()
        first = min((member.at.epoch for member in self._running()), default=epochs + 1)
        with Progress(progress, epochs, self.data.rows, first) as shown:
            interrupts.run(self._epochs, shown, interrupts)
        for member in self.members:
            for callback in member.callbacks:
                if not callback.only_reads_numbers:
                    callback.finish(self.population[member.number])
        return Histories(member.history for member in self.members)

    def _running(self) -> list[Member]:
        return [member for member in self.members if member.runs]

    def _epochs(self, shown: Progress, interrupts: StepBoundary) -> None:
        saves = self.checkpoints
        while (running := self._running()) or saves is not None:
            if saves is not None and not saves.runs(bool(running)):
                break
            if running:
                begun = perf_counter()
                for rows in self.data.steps(running[0].at.epoch, self._running):
                    shown.rows(rows)
                    interrupts.check()
                self._end_epoch(begun, shown, interrupts)
            if saves is not None:
                saves.save()

    def _end_epoch(self, begun: float, shown: Progress, interrupts: StepBoundary) -> None:
        """Validate the members that still run, and add the epoch to their histories."""
        running = self._running()
        if any(not member.at.rows for member in running):
            raise FeedError(f"the data of epoch {running[0].at.epoch} are empty")
        judged = self._validated(running)
        if any(member.at.epoch == member.epochs for member in running):
            self._check_states(running)
        running = [member for member in running if member.runs]
        seconds, losses = (perf_counter() - begun) / max(1, len(running)), self._losses
        for member in running:
            found = judged.get(member.number)
            val_loss = None if found is None else sum(found.pop(name, 0.0) for name in losses)
            member.history.add(member.at.loss, seconds, val_loss, found or {})
            for callback in member.callbacks:
                callback(MemberEpoch(self.population, member))
            member.at.next_epoch()
            interrupts.check()
        if running:
            shown.epoch(min((m.history for m in running), key=lambda h: h.loss[-1]))

    def _validated(self, running: Sequence[Member]) -> dict[int, dict[str, float]]:
        """Return the scalars of members that validate, by the numbers of members and by name."""
        if self.validation is None or not running:
            return {}
        numbers, held = [member.number for member in running], [member.held for member in running]
        rows = None if held[0] is None else held
        found = self.population.evaluate(self.validation, rows=rows, members=numbers)
        columns = [array.tolist() for array in found.values()]
        scalars = (dict(zip(found, row, strict=True)) for row in zip(*columns, strict=True))
        return dict(zip(numbers, scalars, strict=True))

    def _finite(self) -> dict[str, Array]:
        """Return, for each array of the states of floats, which members have all of it finite."""
        return {
            name: np.asarray(np.isfinite(array).reshape(len(array), -1).all(axis=1))
            for name, array in self.population.state.items()
            if array.dtype.kind == "f"
        }

    def _check_states(self, running: Sequence[Member]) -> None:
        """Stop the members whose states are finite no more, in their last epoch."""
        bad = np.zeros(len(self.population), bool)
        for name, finite in self._finite().items():
            bad |= self._watched[name] & ~finite
        for member in running:
            if bad[member.number] and member.at.epoch == member.epochs:
                member.fail("the state is not finite")
