"""Validates `gc.fit`: epochs have the bits of steps made by hand, also after a checkpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial

import numpy as np

from graphc.base.errors import NotFiniteError
from graphc.check.validation.faults import Trial, Trials, Untried
from graphc.check.validation.run import draws_for, source_arrays
from graphc.compiler.loss_share import SUM
from graphc.compiler.plan import Plan
from graphc.ir.op import Array
from graphc.runtime.executor import Executor
from graphc.runtime.row_axis import has_plain_rows
from graphc.runtime.rows import Count
from graphc.train.fit import fit
from graphc.train.standardize import names_of_statistics

EPOCHS = 2


def _check_fitted(plan: Plan) -> None:
    """Raise Untried if training by `gc.fit` is not tried."""
    types = [plan.declared[name].type for name in plan.data_names]
    rows = [type for type in types if type.batched]
    if not plan.rules or plan.shards is not None or plan.ranks > 1:
        raise Untried("gc.fit: it trains nothing, or in shards")
    if not rows or not all(map(has_plain_rows, rows)):
        raise Untried("gc.fit: rows of its inputs cannot be cut by hand")
    if set(plan.data_names) != set(plan.input_names) or names_of_statistics(plan):
        raise Untried("gc.fit: it feeds weights of rows, or statistics, by itself")


def fit_trials(plan: Plan) -> Trials:
    """Yield the trials of two epochs, of their losses, and of a run that a checkpoint cuts.

    Raise Untried if `gc.fit` does what steps by hand do not.
    """
    _check_fitted(plan)
    rows = plan.rows + plan.rows // 2 + 1
    (draw,) = draws_for(plan.declared, [rows])
    arrays = source_arrays(plan.declared, draw)
    data = {name: arrays[name] for name in plan.input_names}
    hand, losses = Executor(plan, seed=1), []
    for _ in range(EPOCHS):
        losses.append(_epoch(hand, data, rows))
    if not np.isfinite(losses).all():
        return
    whole, straight, cut, resumed = (Executor(plan, seed=seed) for seed in (1, 1, 1, 2))
    history = fit(whole, data, epochs=EPOCHS, shuffle=False, progress=False)
    yield _states("fit", hand, whole, rows)
    expected, what = np.array(losses), "the loss of an epoch"
    bounds = {what: 1e-5 * np.abs(expected) + 1e-30}
    found = {what: np.array(history.loss)}
    yield Trial("training", "step", {what: expected}, found, rows, bounds)
    with tempfile.TemporaryDirectory() as folder:
        shuffled = partial(fit, data=data, seed=5, progress=False)
        try:
            shuffled(straight, epochs=EPOCHS)
        except NotFiniteError:  # in this order a batch may have no weight
            return
        shuffled(cut, epochs=1, checkpoint=folder)
        shuffled(resumed, epochs=EPOCHS, checkpoint=folder, resume=True)
    yield _states("a run that a checkpoint continues", straight, resumed, rows)


def _epoch(ex: Executor, data: Mapping[str, Array], rows: int) -> float:
    """Make the steps of an epoch by hand; return the mean loss, by what each step counts."""
    total, counts, graph, count = 0.0, 0.0, ex.plan.declared, Count.of_steps(ex.plan)
    for start in range(0, rows, ex.plan.rows):
        end = min(start + ex.plan.rows, rows)
        cut = {k: v[start:end] if graph[k].type.batched else v for k, v in data.items()}
        weight = count(cut, end - start, ex.state)
        total, counts = total + ex.step(cut) * weight, counts + weight
    return total if count.by == SUM else total / counts


def _states(what: str, one: Executor, other: Executor, rows: int) -> Trial:
    """Return the comparison of the states of two executors."""
    says = f"state {{name!r}} {{wrong}}, after {what}"
    return Trial("training", "step", one.state, other.state, rows, says=says)
