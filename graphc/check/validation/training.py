"""Validates `gc.fit`: epochs have the bits of steps made by hand, also after a checkpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from graphc.base.errors import NotFiniteError
from graphc.check.validation.compare import gap, same_bytes
from graphc.check.validation.explain import Fault
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


def not_fitted(plan: Plan) -> str:
    """Return why training by `gc.fit` is not tried, or ""."""
    types = [plan.declared[name].type for name in plan.data_names]
    rows = [type for type in types if type.batched]
    if not plan.rules or plan.shards is not None or plan.ranks > 1:
        return "it trains nothing, or in shards"
    if not rows or not all(map(has_plain_rows, rows)):
        return "rows of its inputs cannot be cut by hand"
    if set(plan.data_names) != set(plan.input_names) or names_of_statistics(plan):
        return "it feeds weights of rows, or statistics, by itself"
    return ""


def fit_faults(plan: Plan) -> Iterator[Fault]:
    """Yield the faults of two epochs, of their losses, and of a run that a checkpoint cuts."""
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
    yield from _differing("fit", hand, whole, rows)
    expected, found = np.array(losses), np.array(history.loss)
    text = gap(expected, found, 1e-5 * np.abs(expected) + 1e-30)
    if text:
        yield Fault("training", "step", f"the loss of an epoch {text}", rows)
    with tempfile.TemporaryDirectory() as folder:
        shuffled = partial(fit, data=data, seed=5, progress=False)
        try:
            shuffled(straight, epochs=EPOCHS)
        except NotFiniteError:  # in this order a batch may have no weight
            return
        shuffled(cut, epochs=1, checkpoint=folder)
        shuffled(resumed, epochs=EPOCHS, checkpoint=folder, resume=True)
    yield from _differing("a run that a checkpoint continues", straight, resumed, rows)


def _epoch(ex: Executor, data: Mapping[str, Array], rows: int) -> float:
    """Make the steps of an epoch by hand; return the mean loss, by what each step counts."""
    total, counts, graph, count = 0.0, 0.0, ex.plan.declared, Count.of_steps(ex.plan)
    for start in range(0, rows, ex.plan.rows):
        end = min(start + ex.plan.rows, rows)
        cut = {k: v[start:end] if graph[k].type.batched else v for k, v in data.items()}
        weight = count(cut, end - start, ex.state)
        total, counts = total + ex.step(cut) * weight, counts + weight
    return total if count.by == SUM else total / counts


def _differing(what: str, one: Executor, other: Executor, rows: int) -> Iterator[Fault]:
    """Yield a fault for each state that differs."""
    for name, expected in one.state.items():
        found = other.state[name]
        if not same_bytes(expected, found):
            text = gap(expected, found, 0.0) or "has other bytes"
            yield Fault("training", "step", f"state {name!r} {text}, after {what}", rows)
