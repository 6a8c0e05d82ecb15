"""A twin of an executor whose weights are the exponential moving averages of its weights."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from graphc.base.errors import StateError
from graphc.base.loc import caller_loc
from graphc.declare.optim.averages import COUNT, KIND

if TYPE_CHECKING:
    from graphc.runtime.executor import Executor


def averaged(ex: Executor) -> Executor:
    """Return the executor that `Executor.averaged` describes; raise StateError without averages."""
    optimizer = ex.plan.optimizer
    if optimizer is None or optimizer.ema is None:
        raise StateError(
            "averaged: the optimizer keeps no averages of the weights",
            loc=caller_loc(),
            hint="compile with one that does: gc.SGD(lr=0.1, ema=0.999)",
        )
    twin = deepcopy(ex)
    arrays = twin.state.arrays
    if arrays[optimizer.state(COUNT)]:
        kept = {name: optimizer.state(f"{name}.{KIND}") for name in twin.parameters}
        averages = {name: arrays.get(slot) for name, slot in kept.items()}
        twin.state.assign({name: a for name, a in averages.items() if a is not None})
    return twin
