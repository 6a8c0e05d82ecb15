"""Judges updates by the optimizers' rules in plain NumPy.

The rules, `reference` of an optimizer and of a schedule, are written from their papers and from
PyTorch's conventions.  They share no code with the update rules, for which they are the oracle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from math import sqrt

import numpy as np

from graphc.check.validation.compare import Case, Mismatch
from graphc.check.validation.run import (
    Draw,
    Outcome,
    Results,
    float64,
    largest,
    results_of,
    source_arrays,
    values_of,
    values_of_arrays,
    without_gradients,
)
from graphc.declare.optim.optimizer import Group, Optimizer, Update
from graphc.declare.optim.rule import UpdateRule
from graphc.declare.optim.slots import without_own_states
from graphc.declare.track import Tracked
from graphc.ir.graph import Graph, Node
from graphc.ir.init import generator
from graphc.ir.op import Array
from passes.update import Update as UpdatePass


def update_cases(step: UpdatePass, old: Graph, new: Graph, draw: Draw) -> Iterator[Case | Mismatch]:
    """Yield the next states, and those by the optimizer's rule for the gradients before."""
    gradients, expected = _before(step.optimizer, old, draw)
    if gradients and has_rule(step.optimizer):
        new = without_own_states(new, step.optimizer)
        yield from _by_rule(step.optimizer, gradients, expected, new, draw, step.tracked)


def accumulation_cases(
    step: UpdatePass, old: Graph, new: Graph, draw: Draw
) -> Iterator[Case | Mismatch]:
    """Yield the sums, which are the old ones plus gradients, and the count increased by one."""
    gradients, expected = _before(step.optimizer, old, draw)
    new = without_own_states(new, step.optimizer)
    arrays = source_arrays(new, draw)
    for name, gradient in gradients.items():
        total = f"{name}.accumulated"
        expected[f"update {total}"] = arrays.get(total, np.zeros(0)) + gradient
    expected["update accumulated"] = arrays.get("accumulated", np.asarray(0)) + 1
    if gradients:
        yield _case(expected, new, arrays, draw, "old sum and gradient")


def _before(optimizer: Optimizer, graph: Graph, draw: Draw) -> tuple[dict[str, Array], Results]:
    """Return the gradients of trained parameters, and all other results."""
    values = values_of(graph, draw)
    gradients = {
        name: values[gradient]
        for name, gradient in graph.gradients.items()
        if graph[name].op.is_parameter and trained(optimizer, name)
    }
    return gradients, without_gradients(results_of(graph, values))


def apply_cases(
    parameters: Iterable[Node], optimizer: Optimizer, new: Graph, draw: Draw
) -> Iterator[Case | Mismatch]:
    """Yield the next states, and those by the rule, for fed gradients or the mean of sums.

    After accumulation every sum, and the count of steps, must become 0.
    """
    names = [node.name for node in parameters if trained(optimizer, node.name)]
    if not has_rule(optimizer) or not names:
        return
    new = without_own_states(new, optimizer)
    arrays = source_arrays(new, draw)
    expected: Results = {}
    if optimizer.accumulate > 1:
        sums = {name: arrays.get(f"{name}.accumulated", np.zeros(0)) for name in names}
        steps = arrays.get("accumulated", np.asarray(1))
        given = {name: total / steps for name, total in sums.items()}
        expected |= {f"update {n}.accumulated": np.zeros_like(total) for n, total in sums.items()}
        expected["update accumulated"] = np.zeros_like(steps)
    else:
        given = {name: arrays.get(f"gradient:{name}", np.zeros(0)) for name in names}
    yield from _by_rule(optimizer, given, expected, new, draw)


def _by_rule(
    optimizer: Optimizer,
    gradients: Mapping[str, Array],
    others: Results,
    new: Graph,
    draw: Draw,
    tracked: Iterable[Tracked] = (),
) -> Iterator[Case | Mismatch]:
    """Yield states and those of the rule; with a norm limit both above and below the norm."""
    limits: tuple[float | None, ...] = (None,)
    if optimizer.clip_norm is not None:
        norm = float(np.sqrt(sum(float((g * g).sum()) for g in gradients.values())))
        limits = (0.5 * norm, 2.0 * norm)
    for limit in limits:
        arrays = source_arrays(new, draw)
        if limit is not None:
            arrays["hyper.clip_norm"] = np.asarray(limit)
        try:
            states = next_states(optimizer, gradients, arrays)
        except KeyError as error:
            yield Mismatch(f"state {error.args[0]}", draw.rows, "is not read, the rule reads it")
            return
        for each in tracked:
            if each.source in gradients:
                name, rate = each.target.name, each.rate
                states[name] = (1 - rate) * arrays[name] + rate * states[each.source]
        expected = others | {f"update {name}": value for name, value in states.items()}
        yield _case(expected, new, arrays, draw, f"by the rule of {type(optimizer).__name__}")


def _case(
    expected: Results, new: Graph, arrays: Mapping[str, Array], draw: Draw, allowed: str
) -> Case:
    """Return the results of the graph beside the expected ones."""
    results = results_of(new, values_of_arrays(new, draw.rows, arrays))
    outcome = Outcome(new, draw.rows, arrays, results)
    return Case(expected, results, allowed, outcome.bounds)


def rounded_states(
    rule: UpdateRule, graph: Graph, arrays: Mapping[str, Array]
) -> Iterator[tuple[str, Array, Array]]:
    """Yield each next state by the rule, with how far rounding each operand once may move it.

    The graph updates parameters by fed gradients or the mean of sums; the arrays have its dtypes.
    """
    optimizer = rule.optimizer
    plain = without_own_states(graph, optimizer)
    names = dict(zip(plain.nodes, graph.nodes, strict=True))
    states = {name: arrays[own] for name, own in names.items() if own in arrays}
    given = _given(optimizer, graph, states)
    gradients = {name: gradient for name, gradient in given.items() if name in rule.wrt}
    if not has_rule(optimizer) or not gradients:
        return
    rng = generator(0, "validation:rounding")
    exact, *moved = (
        next_states(optimizer, _rounded(gradients, signs), _rounded(states, signs))
        for signs in (None, rng, rng, rng, rng)
    )
    for name, value in exact.items():
        if name in states and states[name].dtype.kind == "f":
            far = np.max([np.abs(run[name] - value) for run in moved], axis=0)
            least = float(np.finfo(states[name].dtype).eps) * (
                largest(value) + largest(states[name])
            )
            bound = 16 * np.maximum(far, np.max(far, initial=0.0) / 8) + 16 * least
            yield names[name], np.asarray(value), np.asarray(bound)


def _given(optimizer: Optimizer, graph: Graph, states: Mapping[str, Array]) -> dict[str, Array]:
    """Return the gradients that an update reads: fed ones, or the mean of sums."""
    if optimizer.accumulate == 1:
        fed = (node for node in graph if node.op.is_input and node.op.role.kind == "gradient")
        return {node.op.role.of: states[node.name] for node in fed}
    steps, end = states["accumulated"], ".accumulated"
    sums = {name: total for name, total in states.items() if name.endswith(end)}
    return {name.removesuffix(end): total / steps for name, total in sums.items()}


def _rounded(arrays: Mapping[str, Array], rng: np.random.Generator | None) -> dict[str, Array]:
    """Return the arrays in float64, each number moved by a rounding of its dtype at random."""
    found = {name: float64(array) for name, array in arrays.items()}
    for name, array in arrays.items():
        if array.dtype.kind == "f" and rng is not None:
            signs = rng.integers(0, 2, array.shape) * 2 - 1
            found[name] = found[name] * (1 + float(np.finfo(array.dtype).eps) * signs)
    return found


# ------------------------------------------------------------------ the rules of the optimizers


def has_rule(optimizer: Optimizer) -> bool:
    """Return whether the classes of the optimizer and of its schedules state a rule."""
    kinds: list[type] = [type(optimizer)]
    schedule = optimizer.schedule
    while schedule is not None:
        kinds.append(type(schedule))
        schedule = getattr(schedule, "then", None)
    return all("reference" in vars(kind) for kind in kinds)


def next_states(
    optimizer: Optimizer, gradients: Mapping[str, Array], state: Mapping[str, Array]
) -> dict[str, Array]:
    """Return parameters, slots and the counter of updates after one update by these gradients."""
    updates = int(state["updates"])
    if optimizer.clip_value is not None:
        most = optimizer.clip_value
        gradients = {name: np.clip(g, -most, most) for name, g in gradients.items()}
    if optimizer.clip_norm is not None:
        norm = sqrt(sum(float(np.vdot(g, g)) for g in gradients.values()))
        ratio = float(state["hyper.clip_norm"]) / norm if norm else 1.0
        scale = float(np.minimum(1.0, ratio))  # NaN where the norm is
        gradients = {name: g * scale for name, g in gradients.items()}
    found: dict[str, Array] = {"updates": np.asarray(updates + 1)}
    for name, g in gradients.items():
        rate, decay = _numbers(optimizer, name, state)
        if optimizer.schedule is not None:
            rate *= optimizer.schedule.reference(updates)
        found |= optimizer.reference(Update(name, g, decay, rate, updates + 1, state))
    if optimizer.ema is not None:
        kept = optimizer.ema if state["ema_updates"] else 0.0
        for name in gradients:
            found[f"{name}.ema"] = kept * state[f"{name}.ema"] + (1 - kept) * found[name]
        found["ema_updates"] = state["ema_updates"] + 1
    return found


def _numbers(optimizer: Optimizer, name: str, state: Mapping[str, Array]) -> tuple[float, float]:
    """Return the learning rate and the weight decay of a parameter."""
    group = _group(optimizer, name)
    title = ",".join(group.names) if group is not None else ""
    own = group is not None and group.lr is not None
    rate = float(state[f"hyper.lr.{title}" if own else "hyper.lr"])
    if group is not None and group.weight_decay is not None:
        return rate, float(state[f"hyper.weight_decay.{title}"]) if group.weight_decay else 0.0
    decays = state[name].ndim >= 2
    if optimizer.decay is not None:
        decays = any(fnmatchcase(name, pattern) for pattern in optimizer.decay)
    decays = decays and optimizer.weight_decay > 0
    return rate, float(state["hyper.weight_decay"]) if decays else 0.0


def trained(optimizer: Optimizer, name: str) -> bool:
    """Return whether a parameter is not in a frozen group."""
    group = _group(optimizer, name)
    return group is None or not group.frozen


def _group(optimizer: Optimizer, name: str) -> Group | None:
    matching = (g for g in optimizer.groups if any(fnmatchcase(name, p) for p in g.names))
    return next(matching, None)
