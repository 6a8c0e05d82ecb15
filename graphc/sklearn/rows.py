"""The rows that an estimator trains on; of sparse features only a batch is ever dense."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from graphc.base.errors import GraphError, counted
from graphc.compiler.plan import Plan
from graphc.data import two_parts
from graphc.declare.perceptrons import WEIGHT
from graphc.ir.op import Array
from graphc.runtime.executor import Executor
from graphc.runtime.members.population import Population
from graphc.train.members.rows import order
from graphc.train.source import Source
from graphc.train.standardize import statistics_of
from graphc.train.user_data import training_source, validation_source

STEPS, LEAST, MOST = 8, 16, 200
"""The steps of an epoch of few rows, and the least and most rows of a step of several."""


class Rows(NamedTuple):
    """The rows to train on: x (N, features), dense or CSR, y, and the weight of each row."""

    x: Any
    y: Array
    weight: Array

    def ready(self, dtype: np.dtype[Any]) -> Rows:
        """Return the rows with positive weights, of at most 1, in this dtype."""
        weight = (self.weight / self.weight.max()).astype(dtype)
        return self._replace(weight=weight).weighted()

    def weighted(self) -> Rows:
        """Return the rows of positive weight."""
        kept = self.weight > 0
        return self if kept.all() else self._at(kept)

    def parts(self, fraction: float, seed: int) -> tuple[Rows, Rows]:
        """Return the rows to train on and those to validate on; raise ValueError for too few."""
        labels = self.y if self.y.ndim == 1 else None
        train, held = two_parts(len(self.weight), fraction, seed, labels)
        if not len(train) or not len(held):
            raise ValueError(
                f"a validation_fraction of {fraction:g} of {counted(len(self.weight), 'row')} "
                "leaves none on one side"
            )
        return self._at(train), self._at(held)

    def _at(self, rows: NDArray[Any]) -> Rows:
        return Rows(self.x[rows], self.y[rows], self.weight[rows])

    def training_source(self, ex: Executor, batch: int, seed: int) -> Source:
        """Return the batches to train on; sparse and dense features come in the same order."""
        return training_source(ex, self._data(ex, batch, seed), batch, seed)

    def validation_source(self, ex: Executor) -> Source:
        """Return the batches to validate on."""
        return validation_source(ex, self._data(ex, ex.plan.batch, None))

    def statistics(self, plan: Plan) -> dict[str, Array]:
        """Return the statistics of what the net standardises, by the names of their states."""
        feeds = self.feeds(plan)
        if issparse(self.x):
            feeds["x"] = _DenseWhenRead(self.x)
        return statistics_of(plan, feeds, self.weight.astype(np.float64))

    def _data(self, ex: Executor, batch: int, seed: int | None) -> Any:
        feeds = self.feeds(ex.plan)
        return partial(_batches, feeds, batch, seed) if issparse(self.x) else feeds

    def feeds(self, plan: Plan) -> dict[str, Any]:
        """Return the arrays that the net takes; raise GraphError if it cannot take weights."""
        found = {"x": self.x, "y": self.y}
        if WEIGHT in plan.input_names:
            return {**found, WEIGHT: self.weight}
        if np.ptp(self.weight):
            raise GraphError(
                f"net {plan.declared.name!r} takes no sample_weight",
                hint=f"declare net.input({WEIGHT!r}, gc.N), and give it to the loss: "
                f"gc.softmax_loss(scores, y, weight=w)",
            )
        return found


class _DenseWhenRead:
    """A CSR matrix of which rows are dense arrays when they are read."""

    def __init__(self, matrix: Any) -> None:
        self._matrix, self.shape, self.dtype = matrix, matrix.shape, matrix.dtype

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: int | slice) -> Array:
        if isinstance(rows, slice):
            return np.asarray(self._matrix[rows].toarray())
        return np.asarray(self[rows : rows + 1][0])


def rows_of_a_step(rows: int) -> int:
    """Return how many rows a step takes by default, so that all of an epoch are about as long."""
    steps = min(max(STEPS, math.ceil(rows / MOST)), max(1, rows // LEAST))
    return math.ceil(rows / steps)


def _batches(
    feeds: Mapping[str, Any], batch: int, seed: int | None, epoch: int
) -> Iterator[dict[str, Array]]:
    """Yield the batches of an epoch in the order of dense arrays, which `ArraySource` has."""
    count = len(feeds["y"])
    every = np.arange(count) if seed is None else order(count, seed, epoch)
    for start in range(0, count, batch):
        rows = every[start : start + batch]
        yield {**{k: v[rows] for k, v in feeds.items()}, "x": feeds["x"][rows].toarray()}


def predict(ex: Executor | Population, x: Any, **asked: Any) -> Any:
    """Return the outputs for rows of features, dense or CSR."""
    if not issparse(x):
        return ex.predict(x=x, **asked)
    size, axis = ex.plan.batch, int(isinstance(ex, Population))
    starts = range(0, x.shape[0], size)
    pieces = [ex.predict(x=x[i : i + size].toarray(), **asked) for i in starts]
    if isinstance(pieces[0], dict):
        return {name: np.concatenate([piece[name] for piece in pieces], axis) for name in pieces[0]}
    return np.concatenate(pieces, axis)
