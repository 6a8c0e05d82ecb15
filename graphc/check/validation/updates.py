"""Checks update, accumulate and apply against the optimizers' rules in plain NumPy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from graphc.check.validation.compare import Mismatch, first_mismatch
from graphc.check.validation.draws import Draw, given_of
from graphc.check.validation.rules import has_rule, next_states, trained
from graphc.check.validation.run import Results, results_of, spread, values_of_arrays
from graphc.declare.optim import Optimizer
from graphc.declare.optim.naming import without_own_states
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array
from graphc.ops.source import Parameter


def update_mismatch(optimizer: Optimizer, old: Graph, new: Graph, draw: Draw) -> Mismatch | None:
    """Return a next state that differs from the optimizer's rule for the gradients before."""
    gradients = _of_parameters(old, optimizer)
    if not has_rule(optimizer) or not gradients:
        return None
    new = without_own_states(new, optimizer)
    values = values_of_arrays(old, draw.rows, given_of(old, draw))
    expected = _without_gradients(results_of(old, values))
    given = {name: values[gradient] for name, gradient in gradients.items()}
    return _by_rule(optimizer, given, expected, new, draw)


def accumulation_mismatch(
    optimizer: Optimizer, old: Graph, new: Graph, draw: Draw
) -> Mismatch | None:
    """Return a sum that is not the old one plus the gradient, or a count not increased by one."""
    gradients = _of_parameters(old, optimizer)
    if not gradients:
        return None
    new = without_own_states(new, optimizer)
    arrays = given_of(new, draw)
    values = values_of_arrays(old, draw.rows, given_of(old, draw))
    expected = _without_gradients(results_of(old, values))
    for name, gradient in gradients.items():
        total = f"{name}.accumulated"
        expected[f"update {total}"] = arrays.get(total, np.zeros(0)) + values[gradient]
    expected["update accumulated"] = arrays.get("accumulated", np.asarray(0)) + 1
    return _found(expected, new, arrays, draw, "old sum and gradient")


def apply_mismatch(
    parameters: Iterable[Node], optimizer: Optimizer, new: Graph, draw: Draw
) -> Mismatch | None:
    """Return a next state that differs from the rule, for fed gradients or the mean of sums.

    After accumulation every sum, and the count of steps, must become 0.
    """
    names = [node.name for node in parameters if trained(optimizer, node.name)]
    if not has_rule(optimizer) or not names:
        return None
    new = without_own_states(new, optimizer)
    arrays = given_of(new, draw)
    expected: Results = {}
    if optimizer.accumulate > 1:
        sums = {name: arrays.get(f"{name}.accumulated", np.zeros(0)) for name in names}
        steps = arrays.get("accumulated", np.asarray(1))
        given = {name: total / steps for name, total in sums.items()}
        expected |= {f"update {n}.accumulated": np.zeros_like(total) for n, total in sums.items()}
        expected["update accumulated"] = np.zeros_like(steps)
    else:
        given = {name: arrays.get(f"gradient:{name}", np.zeros(0)) for name in names}
    return _by_rule(optimizer, given, expected, new, draw)


def _by_rule(
    optimizer: Optimizer, gradients: Mapping[str, Array], others: Results, new: Graph, draw: Draw
) -> Mismatch | None:
    """Compare the states with the rule's; if clipping is asked for, both with and without it."""
    limits: tuple[float | None, ...] = (None,)
    if optimizer.clip_norm is not None:
        norm = float(np.sqrt(sum(float((g * g).sum()) for g in gradients.values())))
        limits = (0.5 * norm, 2.0 * norm)
    for limit in limits:
        arrays = given_of(new, draw)
        if limit is not None:
            arrays["hyper.clip_norm"] = np.asarray(limit)
        found = _lacking(optimizer, gradients, arrays, draw)
        if found is None:
            states = next_states(optimizer, gradients, arrays)
            expected = others | {f"update {name}": value for name, value in states.items()}
            found = _found(
                expected, new, arrays, draw, f"by the rule of {type(optimizer).__name__}"
            )
        if found is not None:
            return found
    return None


def _lacking(
    optimizer: Optimizer, gradients: Mapping[str, Array], arrays: Mapping[str, Array], draw: Draw
) -> Mismatch | None:
    """Return a state that the rule reads and the graph does not have."""
    try:
        next_states(optimizer, gradients, arrays)
    except KeyError as error:
        return Mismatch(f"state {error.args[0]}", draw.rows, "is not read, the rule reads it")
    return None


def _found(
    expected: Results, new: Graph, arrays: Mapping[str, Array], draw: Draw, allowed: str
) -> Mismatch | None:
    after = results_of(new, values_of_arrays(new, draw.rows, arrays))
    bounds = spread(new, draw.rows, arrays, after)
    limits = {name: bounds.get(name, 0.0) for name in expected}
    found = first_mismatch(expected, after, limits, draw.rows, allowed)
    if found is None or not found.what.startswith("update "):
        return found
    return replace(found, node=new.updates.get(found.what.partition(" ")[2], ""))


def _of_parameters(graph: Graph, optimizer: Optimizer) -> dict[str, str]:
    """Return the gradients of parameters that are trained."""
    return {
        name: gradient
        for name, gradient in graph.gradients.items()
        if isinstance(graph[name].op, Parameter) and trained(optimizer, name)
    }


def _without_gradients(results: Results) -> Results:
    return {name: value for name, value in results.items() if not name.startswith("gradient ")}
