"""Trainings of estimators as the members of populations, one for each kind of net."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from graphc.base.errors import NotFiniteError
from graphc.compiler.compile import compile
from graphc.compiler.plan import Plan
from graphc.declare.optim.optimizer import Optimizer, leading, numbers_of
from graphc.declare.perceptrons import Declare
from graphc.ir.op import Array
from graphc.runtime.executor import Executor
from graphc.runtime.members.population import Population
from graphc.sklearn.known import Known, are_comparable
from graphc.sklearn.nets import checked_net
from graphc.sklearn.rows import Rows, predict
from graphc.train.callbacks import Callback, EarlyStopping
from graphc.train.history import Histories, History
from graphc.train.members.member import Member
from graphc.train.members.run import OwnRows, PopulationRun
from graphc.train.run import Run
from graphc.train.standardize import names_of_statistics

Numbers = NDArray[np.intp]
Checked = tuple[Rows, int, Sequence[str]]
"""Rows, the number of outputs for them, and the names of their classes."""
REFUSED = (ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
"""The errors by which nets, and steps before them, refuse options and data; others are bugs."""
DATA_OPTIONS = ("categorical_features", "class_weight", "dtype", "net", "prepare")
"""The options of an estimator by which it checks data."""
CHECKED = ("n_features_in_", "classes_", "_multilabel", "_flat", "_words")
"""The attributes that checked data gives an estimator."""


@dataclass(frozen=True)
class NetChoice:
    """The net of an estimator, and the options with which it is compiled."""

    declare: Declare
    features: int
    units: int
    output: str
    optimizer: Optimizer
    batch: int
    threads: int | None
    backend: str | None
    own: bool
    """True for a function of the user, which may declare another net at each call."""

    def plan(self) -> Plan:
        """Return the plan; those of perceptrons are cached, since a search asks for equal ones."""
        return _compiled(self) if self.own else _cached(self)

    @property
    def kind(self) -> NetChoice:
        """The choice without the numbers in which the members of a population may differ."""
        return replace(self, optimizer=self.optimizer.kind)


def _compiled(choice: NetChoice) -> Plan:
    net = choice.declare(choice.features, choice.units)
    if choice.own:
        net = checked_net(net, choice.units, choice.output)
    return compile(
        net,
        batch=choice.batch,
        optimizer=choice.optimizer,
        threads=choice.threads,
        backend=choice.backend,
    )


_cached = lru_cache(maxsize=16)(_compiled)


class MemberTask(NamedTuple):
    """The rows, seed and epochs of a member of a population."""

    rows: Rows
    held: Rows | None
    batch: int
    seed: int
    epochs: int
    callbacks: tuple[Callback, ...]
    history: History


def train_alone(ex: Executor, task: MemberTask) -> None:
    """Train one executor; raise NotFiniteError if the loss does not stay finite."""
    source = task.rows.training_source(ex, task.batch, task.seed)
    judged = None if task.held is None else task.held.validation_source(ex)
    run = Run(ex, source, task.epochs, task.callbacks, validation=judged, history=task.history)
    run.train(progress=False)


def train_ensemble(population: Population, tasks: Sequence[MemberTask]) -> None:
    """Train all members; raise NotFiniteError if a loss does not stay finite."""
    if issparse(tasks[0].rows.x):
        for ex, task in zip(population, tasks, strict=True):
            train_alone(ex, task)
        return
    for member in train_members(population, tasks):
        if member.failed:
            raise NotFiniteError(
                f"member {member.number} of the ensemble: {member.history.stopped}",
                hint="a smaller lr; the same net with ensemble=1 names the node where it began",
            )


def train_members(population: Population, tasks: Sequence[MemberTask]) -> list[Member]:
    """Train each member on its rows, in the order of its seed, and return how they ended.

    All take equally many rows a step.
    """
    rows, held = Joined(), Joined()
    members = []
    for number, task in enumerate(tasks):
        task.history.stopped = ""
        judged = None if task.held is None else held.numbers(task.held)
        member = Member(number, task.epochs, task.callbacks, rows.numbers(task.rows), judged)
        member.seed, member.history = task.seed, task.history
        member.at.epoch = len(task.history.epochs) + 1
        members.append(member)
    plan = population.plan
    data = OwnRows(population, rows.feeds(plan), members, tasks[0].batch)
    validation = held.feeds(plan) if held.parts else None
    PopulationRun(population, members, data, validation).train(progress=False)
    return members


class Joined:
    """The rows of several trainings one after the other; those that some share come once."""

    def __init__(self) -> None:
        self.parts: dict[int, tuple[Rows, Numbers]] = {}
        self._count = 0

    def numbers(self, rows: Rows) -> Numbers:
        """Return the numbers of the rows in the whole."""
        if id(rows) not in self.parts:
            start, self._count = self._count, self._count + len(rows.weight)
            self.parts[id(rows)] = rows, np.arange(start, self._count)
        return self.parts[id(rows)][1]

    def feeds(self, plan: Plan) -> dict[str, Array]:
        """Return the arrays that the net takes."""
        found = [rows.feeds(plan) for rows, _ in self.parts.values()]
        if len(found) == 1:
            return found[0]
        return {name: np.concatenate([feeds[name] for feeds in found]) for name in found[0]}


def fit_statistics(population: Population, rows: Sequence[Rows]) -> None:
    """Fit what the net of each member standardises to its rows."""
    names = names_of_statistics(population.plan)
    distinct = {id(own): own for own in rows} if names else {}
    found = {key: own.statistics(population.plan) for key, own in distinct.items()}
    population.state = {name: np.stack([found[id(own)][name] for own in rows]) for name in names}


@dataclass(frozen=True)
class Training:
    """All that the result of an estimator's `fit` depends on."""

    choice: NetChoice
    rows: Rows
    held: Rows | None
    batch: int
    seeds: tuple[int, ...]
    epochs: int
    stopping: EarlyStopping
    random: bool
    """True if another `fit` draws other seeds."""

    @property
    def fits(self) -> bool:
        """True if a member of a population can do it: rows are dense, and nets are comparable."""
        return isinstance(self.choice.declare, Hashable) and not issparse(self.rows.x)

    @cached_property
    def key(self) -> tuple[Any, ...]:
        """The values that are the same for equal trainings on the same rows."""
        stopping = self.stopping
        return (
            self.choice,
            *(None if rows is None else id(rows) for rows in (self.rows, self.held)),
            self.batch,
            len(self.seeds) if self.random else self.seeds,
            self.epochs,
            (stopping.patience, stopping.least, stopping.watch),
        )

    def tasks(self) -> Iterator[MemberTask]:
        """Yield what each member trains."""
        for seed in self.seeds:
            stopping = deepcopy(self.stopping)
            yield MemberTask(
                self.rows, self.held, self.batch, seed, self.epochs, (stopping,), History()
            )


class Trained(NamedTuple):
    """The result of a training: some members of a population, and a history for each."""

    population: Population
    members: Sequence[int]
    seeds: Sequence[int]
    histories: Histories
    beside: tuple[int, ...]
    """The members that were trained on the same rows, which mostly predict for the same rows."""
    outputs: Known[Any]
    """The outputs of members of this population for rows."""

    def predict(self, x: Any) -> Any:
        """Return the outputs of the members; those beside them are computed with them, and kept."""
        if not are_comparable([x]):
            return predict(self.population, x, members=self.members)
        asked = self.beside
        found = self.outputs(asked, [x], lambda: predict(self.population, x, members=asked))
        own = [asked.index(member) for member in self.members]
        if isinstance(found, dict):
            return {name: array[own] for name, array in found.items()}
        return found[own]

    def states(self) -> list[dict[str, Array]]:
        """Return copies of the states of the members."""
        return [self.population[i].snapshot() for i in self.members]


class Sweep:
    """Trainings that are noted first, then run side by side, then looked up."""

    def __init__(self) -> None:
        self.noting = True
        self._checked: Known[tuple[Checked, dict[str, Any]]] = Known()
        self._known: Known[Rows] = Known()
        self._noted: dict[tuple[Any, ...], list[Training]] = {}
        self._results: dict[tuple[Any, ...], list[Trained]] = {}

    def checked(self, model: Any, check: Callable[..., Checked], *given: Any) -> Checked:
        """Return data as a new estimator checks them; equal ones are checked once."""
        key = type(model), *(getattr(model, name, None) for name in DATA_OPTIONS)
        if not are_comparable(given) or not _is_hashable(key) or hasattr(model, CHECKED[0]):
            return check(*given)

        def make() -> tuple[Checked, dict[str, Any]]:
            found, known = check(*given), vars(model)
            return found, {name: known[name] for name in CHECKED if name in known}

        found, attributes = self._checked(key, given, make)
        vars(model).update(attributes)
        return found

    def note(self, training: Training) -> None:
        """Remember a training, unless members of a population cannot do it."""
        if not training.fits:
            return
        training = self._on_known_rows(training)
        found = self._noted.setdefault(training.key, [])
        if training.random or not found:
            found.append(training)

    def _on_known_rows(self, training: Training) -> Training:
        """Return the training on the first rows that are equal to its own."""
        rows, held = training.rows, training.held
        return replace(
            training,
            rows=self._known(None, rows, lambda: rows),
            held=None if held is None else self._known(None, held, lambda: held),
        )

    def run(self) -> None:
        """Run what was noted, a population for each kind of net."""
        self.noting = False
        kinds: dict[Any, list[tuple[tuple[Any, ...], Training]]] = defaultdict(list)
        for key, noted in self._noted.items():
            for one in noted:
                kinds[one.choice.kind, one.batch, one.held is None].append((key, one))
        self._noted = {}
        for pairs in kinds.values():
            keys, trainings = zip(*pairs, strict=True)
            # What fails here fails again, for its own candidate, when that is trained alone.
            with suppress(*REFUSED):
                for key, trained in zip(keys, _run(trainings), strict=True):
                    if trained is not None:
                        self._results.setdefault(key, []).append(trained)

    def result(self, training: Training) -> Trained | None:
        """Return the result of a training, or None if it was not noted or has failed."""
        if not training.fits:
            return None
        found = self._results.get(self._on_known_rows(training).key, [])
        return found.pop() if training.random and found else next(iter(found), None)


def _run(trainings: Sequence[Training]) -> Iterator[Trained | None]:
    """Run trainings of one kind as one population; yield None for those that have failed."""
    optimizer = leading(training.choice.optimizer for training in trainings)
    plan = replace(trainings[0].choice, optimizer=optimizer).plan()
    pairs = [(training, task) for training in trainings for task in training.tasks()]
    tasks = [task for _, task in pairs]
    population = Population(plan, seeds=[task.seed for task in tasks])
    optimizers = [training.choice.optimizer for training, _ in pairs]
    population.hyper.update(numbers_of(optimizers, population.hyper))
    fit_statistics(population, [task.rows for task in tasks])
    members = train_members(population, tasks)
    beside: dict[int, list[int]] = defaultdict(list)
    for number, task in enumerate(tasks):
        beside[id(task.rows)].append(number)
    outputs: Known[Any] = Known()
    start = 0
    for training in trainings:
        own = range(start, start + len(training.seeds))
        start = own.stop
        histories = Histories(members[i].history for i in own)
        failed = any(members[i].failed for i in own)
        near = tuple(beside[id(training.rows)])
        made = Trained(population, own, training.seeds, histories, near, outputs)
        yield None if failed else made


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


SWEEP: ContextVar[Sweep | None] = ContextVar("SWEEP", default=None)
"""The sweep to which the estimators of this thread leave their trainings."""


@contextmanager
def sweep() -> Iterator[Sweep]:
    """Let `fit` only note what it would train; after `Sweep.run`, let it take the results."""
    found = Sweep()
    token = SWEEP.set(found)
    try:
        yield found
    finally:
        SWEEP.reset(token)
