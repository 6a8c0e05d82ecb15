"""`gc.fit` of a population: the rows, seeds and callbacks of each member."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np

from graphc.base.errors import GraphError
from graphc.runtime.population import Population
from graphc.runtime.rows import weight_input
from graphc.train.callbacks import Callback
from graphc.train.history import Histories
from graphc.train.member_rows import Rows, bootstrap_rows, folds_of
from graphc.train.population_run import Member, OwnRows, PopulationRun, SharedRows
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


def fit_population(
    population: Population,
    data: Any,
    choice: Choice,
    validation: Any,
    epochs: int,
    callbacks: tuple[Callback, ...],
    progress: bool | None,
) -> Histories:
    """Train all members; raise FeedError or GraphError, with nothing changed, for a misfit."""
    source = training_source(population[0], data, choice.batch, choice.seeds[0], **choice.weights)
    held = None
    if validation is not None:
        held = _arrays(_of_arrays(validation_source(population[0], validation)))
    members = [
        Member(number, epochs, tuple(map(deepcopy, callbacks)), seed=seed)
        for number, seed in enumerate(choice.seeds)
    ]
    batches: SharedRows | OwnRows
    if choice.shared:
        batches = SharedRows(population, source)
    else:
        chosen = _of_arrays(source)
        arrays = _arrays(chosen)
        _choose_rows(population, members, arrays, chosen.rows, choice)
        batches = OwnRows(population, arrays, members, choice.batch)
        if choice.folds is not None:
            held = _unweighted(population, batches.arrays, chosen)
    _standardise(population, source, members)
    return PopulationRun(population, members, batches, held).train(progress)


def _choose_rows(
    population: Population,
    members: Sequence[Member],
    arrays: Mapping[str, Any],
    count: int,
    choice: Choice,
) -> None:
    """Set the rows of each member: all, those of its fold, or a sample of them."""
    pairs: Sequence[tuple[Rows, Rows | None]] = [(np.arange(count), None)]
    if choice.folds is not None:
        pairs = folds_of(choice.folds, arrays, count, choice.fold_seed)
    if len(members) % len(pairs):
        raise GraphError(
            f"fit: {len(members)} members are not equally many for each of {len(pairs)} folds",
            hint="member i leaves out fold i % folds: make a multiple of their number",
        )
    for member, seed in zip(members, population.seeds, strict=True):
        rows, member.held = pairs[member.number % len(pairs)]
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
