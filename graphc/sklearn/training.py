"""Epochs over the rows until the loss stands still."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

from graphc.errors import GraphError
from graphc.executor import Executor
from graphc.op import Array
from graphc.sklearn.nets import WEIGHT
from graphc.train.batches import Batches
from graphc.train.history import History
from graphc.train.interrupts import StepBorder


@dataclass(frozen=True)
class Until:
    """When training ends: after so many epochs, or when `patience` of them gained too little."""

    epochs: int
    tol: float
    patience: int


def train(
    ex: Executor, feeds: Mapping[str, Array], seed: int, until: Until, history: History
) -> None:
    """Train on all rows, shuffled by the seed and the number of the epoch in the history.

    Ends when the loss was, for `patience` epochs in a row, not `tol` better than its best.
    GraphError when the loss is no longer finite.
    """
    arrays, rows = ex.rows(feeds, train=True)
    types = {name: ex.plan.declared[name].type for name in arrays}
    batches = Batches(arrays, types, rows, ex.plan.batch)
    best, waited = math.inf, 0
    for _ in range(until.epochs):
        start = perf_counter()
        batches.shuffle(seed, len(history.epochs) + 1)
        loss = _epoch(ex, batches)
        history.add(loss, perf_counter() - start, None, {})
        if not math.isfinite(loss):
            raise GraphError(
                f"the loss of epoch {len(history.epochs)} is {loss}",
                hint="a smaller lr may help: the default is 0.001",
            )
        waited = 0 if loss < best - until.tol else waited + 1
        best = min(best, loss)
        if waited >= until.patience:
            return


def _epoch(ex: Executor, batches: Batches) -> float:
    """One step for each batch; returns the mean loss, by the weights of the rows."""
    losses, total = 0.0, 0.0
    with StepBorder() as border:
        for n, feeds in batches:
            share = float(feeds[WEIGHT].sum()) if WEIGHT in feeds else n
            losses += share * ex.step(feeds)
            total += share
            border.check()
    return losses / total
