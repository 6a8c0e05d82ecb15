"""`gc.fit` of a population: the rows, seeds and callbacks of each member."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np

from graphc.base.arguments import whole
from graphc.base.errors import GraphError
from graphc.runtime.distributed.agreement import check_equal, on_all_ranks
from graphc.runtime.members.population import Population
from graphc.runtime.rows import weight_input
from graphc.train.callbacks import Callback
from graphc.train.checkpoints import Checkpoints
from graphc.train.history import Histories
from graphc.train.members.checkpoints import PopulationCheckpoints
from graphc.train.members.member import Member
from graphc.train.members.rows import Rows, bootstrap_rows, folds_of
from graphc.train.members.run import OwnRows, PopulationRun, SharedRows
from graphc.train.record.folder import digest_of, kind_of_run
from graphc.train.source import ArraySource, Source
from graphc.train.standardize import check_fitted, fit_members
from graphc.train.user_data import training_source, validation_source


class Choice(NamedTuple):
    """The options of `fit` that choose the rows of members."""

    batch: int
    seeds: Sequence[int | None]
    """The seeds of the orders of rows, None for their own order."""
    folds: Any
    fold_seed: int
    bootstrap: bool
    weights: Mapping[str, Any]
    """`sample_weight` and `class_weight`."""

    @property
    def shared(self) -> bool:
        """True if all members take the same batches."""
        return self.folds is None and not self.bootstrap and len(set(self.seeds)) == 1

    def described(self) -> dict[str, Any]:
        """Return, for JSON, the options that ranks and a resumed run must share."""
        folds: Any = whole(self.folds)
        if folds is None and self.folds is not None:
            rows = [np.asarray(part, np.int64) for pair in self.folds for part in pair]
            folds = {"described": f"{len(rows) // 2} pairs of rows", "digest": digest_of(rows)}
        return {
            "orders": list(self.seeds),
            "batch": self.batch,
            "folds": folds,
            "fold_seed": self.fold_seed,
            "bootstrap": self.bootstrap,
        }


def fit_population(
    everyone: Population,
    data: Any,
    choice: Choice,
    validation: Any,
    epochs: int,
    callbacks: tuple[Callback, ...],
    progress: bool | None,
    checkpoints: Checkpoints | None,
    resume: bool,
) -> Histories:
    """Train all members; raise FeedError or GraphError, with nothing changed, for a misfit.

    Each rank trains those that it holds, without a word to the others except at checkpoints.
    """
    ranks, population = everyone.ranks, everyone.local
    if len(everyone) < ranks.size:
        raise GraphError(
            f"fit: there are {len(everyone)} members for {ranks.size} ranks",
            hint="train them without ranks: gc.load(gc.save(path, population))",
        )
    source = training_source(population[0], data, choice.batch, choice.seeds[0], **choice.weights)
    held = None if validation is None else _of_arrays(validation_source(population[0], validation))
    members = [
        Member(number, epochs, tuple(map(deepcopy, callbacks)), before=everyone.own.start)
        for number in range(len(population))
    ]
    run = PopulationRun(population, members, _batches(everyone, members, source, choice))
    if held is not None:
        run.validation = _arrays(held)
    elif isinstance(run.data, OwnRows) and choice.folds is not None:
        run.validation = _unweighted(population, run.data.arrays, _of_arrays(source))
    choices = dict[str, Any]()
    if ranks.size > 1 or checkpoints is not None:
        weights = choice.weights["class_weight"]
        choices = choice.described() | kind_of_run(everyone, source, held, weights)
    if ranks.size > 1:
        files = {"checkpoint": checkpoints is not None, "resume": resume}
        check_equal(ranks, population.plan, {"epochs": epochs, **choices, **files})
    if checkpoints is not None:
        run.checkpoints = PopulationCheckpoints(everyone, members, checkpoints, choices)
    with nullcontext() if run.checkpoints is None else closing(run.checkpoints) as saves:
        if saves is not None:
            saves.begin(resume, epochs)
        _standardise(population, source, members)
        parts = on_all_ranks(ranks, lambda: run.train(False if ranks.rank else progress))
    return Histories(history for part in parts for history in part)


def _batches(
    everyone: Population, members: Sequence[Member], source: Source, choice: Choice
) -> SharedRows | OwnRows:
    """Return the steps of members: on the same batches, or on rows of their own."""
    population = everyone.local
    for member in members:
        member.seed = choice.seeds[member.overall]
    if choice.shared:
        return SharedRows(population, source)
    chosen = _of_arrays(source)
    arrays = _arrays(chosen)
    _choose_rows(everyone, members, arrays, chosen.rows, choice)
    return OwnRows(population, arrays, members, choice.batch)


def _choose_rows(
    everyone: Population,
    members: Sequence[Member],
    arrays: Mapping[str, Any],
    count: int,
    choice: Choice,
) -> None:
    """Set the rows of each member: all, those of its fold, or a sample of them."""
    pairs: Sequence[tuple[Rows, Rows | None]] = [(np.arange(count), None)]
    if choice.folds is not None:
        pairs = folds_of(choice.folds, arrays, count, choice.fold_seed)
    if len(everyone) % len(pairs):
        raise GraphError(
            f"fit: {len(everyone)} members are not equally many for each of {len(pairs)} folds",
            hint="member i leaves out fold i % folds: make a multiple of their number",
        )
    for member, seed in zip(members, everyone.local.seeds, strict=True):
        rows, member.held = pairs[member.overall % len(pairs)]
        member.rows = rows[bootstrap_rows(seed, len(rows))] if choice.bootstrap else rows


def _standardise(population: Population, source: Source, members: Sequence[Member]) -> None:
    """Fit statistics that members do not have yet, each to its rows."""
    if not isinstance(source, ArraySource):
        return check_fitted(population[0])
    whole = np.arange(source.rows)
    rows = [whole if member.rows is None else member.rows for member in members]
    return fit_members(population, source.named, rows)


def _of_arrays(source: Source) -> ArraySource:
    """Return a source that has arrays; raise GraphError for another one."""
    if not isinstance(source, ArraySource):
        raise GraphError(
            "fit: members take rows of their own, and validate, on arrays only",
            hint="without folds=, bootstrap= and seeds of their own all may train on the batches "
            "of a function or of part files",
        )
    return source


def _arrays(source: ArraySource) -> dict[str, Any]:
    """Return the arrays of a source, weights of classes included."""
    found = dict(source.named)
    return found if source.weigh is None else source.weigh((source.rows, found))[1]


def _unweighted(
    population: Population, arrays: Mapping[str, Any], source: ArraySource
) -> dict[str, Any]:
    """Return the arrays without the weights of classes: those count in training alone."""
    takes = weight_input(population.plan)
    return {**arrays, **({} if takes is None else {takes.name: source.named[takes.name]})}
