"""Checks update, accumulate and apply against the optimizers' rules in plain NumPy.

The rules are written from their papers and from PyTorch's conventions.  They share no code with
graphc's own update rules, for which they are the oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import cos, pi, sqrt
from typing import Any

import numpy as np

from graphc.check.validation.run import (
    Draw,
    Mismatch,
    Results,
    first_mismatch,
    given_of,
    results_of,
    spread,
    values_of,
    values_of_arrays,
    without_gradients,
)
from graphc.declare import optim
from graphc.declare.optim import Group, Optimizer
from graphc.declare.optim.slots import without_own_states
from graphc.declare.schedules import Cosine, Schedule, Step, WarmUp
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array


def update_mismatch(optimizer: Optimizer, old: Graph, new: Graph, draw: Draw) -> Mismatch | None:
    """Return a next state that differs from the optimizer's rule for the gradients before."""
    if not has_rule(optimizer):
        return None
    gradients, expected = _before(optimizer, old, draw)
    if not gradients:
        return None
    return _by_rule(optimizer, gradients, expected, without_own_states(new, optimizer), draw)


def accumulation_mismatch(
    optimizer: Optimizer, old: Graph, new: Graph, draw: Draw
) -> Mismatch | None:
    """Return a sum that is not the old one plus the gradient, or a count not increased by one."""
    gradients, expected = _before(optimizer, old, draw)
    if not gradients:
        return None
    new = without_own_states(new, optimizer)
    arrays = given_of(new, draw)
    for name, gradient in gradients.items():
        total = f"{name}.accumulated"
        expected[f"update {total}"] = arrays.get(total, np.zeros(0)) + gradient
    expected["update accumulated"] = arrays.get("accumulated", np.asarray(0)) + 1
    return _found(expected, new, arrays, draw, "old sum and gradient")


def _before(optimizer: Optimizer, graph: Graph, draw: Draw) -> tuple[dict[str, Array], Results]:
    """Return the gradients of trained parameters, and all results that are no gradients."""
    values = values_of(graph, draw)
    gradients = {
        name: values[gradient]
        for name, gradient in graph.gradients.items()
        if graph[name].op.is_parameter and trained(optimizer, name)
    }
    return gradients, without_gradients(results_of(graph, values))


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
        try:
            states = next_states(optimizer, gradients, arrays)
        except KeyError as error:
            missing = f"state {error.args[0]}"
            return Mismatch(missing, draw.rows, "is not read, the rule reads it")
        expected = others | {f"update {name}": value for name, value in states.items()}
        rule = f"by the rule of {type(optimizer).__name__}"
        found = _found(expected, new, arrays, draw, rule)
        if found is not None:
            return found
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


# ------------------------------------------------------------------ the rules of the optimizers

States = Mapping[str, Array]


def has_rule(optimizer: Optimizer) -> bool:
    """Return whether the optimizer and its schedule are graphc's own, not a user's."""
    schedule = optimizer.schedule
    own = type(optimizer) in RULES
    return own and (schedule is None or _known(schedule))


def _known(schedule: Schedule) -> bool:
    if isinstance(schedule, WarmUp) and schedule.then is not None:
        return type(schedule) is WarmUp and _known(schedule.then)
    return type(schedule) in (WarmUp, Cosine, Step)


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
            rate *= factor(optimizer.schedule, updates)
        update = _Update(name, g, decay, rate, updates + 1, state)
        found |= RULES[type(optimizer)](optimizer, update)
    if optimizer.ema is not None:
        kept = optimizer.ema if state["ema_updates"] else 0.0
        for name in gradients:
            found[f"{name}.ema"] = kept * state[f"{name}.ema"] + (1 - kept) * found[name]
        found["ema_updates"] = state["ema_updates"] + 1
    return found


def _numbers(optimizer: Optimizer, name: str, state: Mapping[str, Array]) -> tuple[float, float]:
    """Return the learning rate and the weight decay of a parameter."""
    group = _group(optimizer, name)
    own = group is not None and group.lr is not None
    rate = float(state[f"hyper.lr.{','.join(group.names)}" if group and own else "hyper.lr"])
    if group is not None and group.weight_decay is not None:
        return rate, group.weight_decay
    decays = state[name].ndim >= 2
    if optimizer.decay is not None:
        decays = any(fnmatchcase(name, pattern) for pattern in optimizer.decay)
    return rate, optimizer.weight_decay if decays else 0.0


def trained(optimizer: Optimizer, name: str) -> bool:
    """Return whether a parameter is not in a frozen group."""
    group = _group(optimizer, name)
    return group is None or not group.frozen


def _group(optimizer: Optimizer, name: str) -> Group | None:
    matching = (g for g in optimizer.groups if any(fnmatchcase(name, p) for p in g.names))
    return next(matching, None)


@dataclass(frozen=True)
class _Update:
    """The values that a rule reads to update one parameter."""

    name: str
    gradient: Array
    decay: float
    rate: float
    t: int
    """The number of the update, from 1 on."""
    state: States

    @property
    def p(self) -> Array:
        """The parameter."""
        return self.state[self.name]

    @property
    def g(self) -> Array:
        """The gradient, with that of the weight decay."""
        return self.gradient + self.decay * self.p

    def slot(self, name: str) -> Array:
        """Return the parameter's slot of that name."""
        return self.state[f"{self.name}.{name}"]

    def next(self, p: Array, **slots: Array) -> dict[str, Array]:
        """Return the next parameter and slots by their names in the state."""
        return {f"{self.name}.{name}": value for name, value in slots.items()} | {self.name: p}


def _mixed(old: Array, new: Array, keep: float) -> Array:
    """Return the running mean that keeps that share of the old value."""
    return keep * old + (1 - keep) * new


def _sgd(o: optim.SGD, u: _Update) -> dict[str, Array]:
    """Update by SGD: I. Sutskever et al., ICML 2013, as in torch.optim.SGD."""
    g = u.g
    if not o.momentum:
        return u.next(u.p - u.rate * g)
    velocity = o.momentum * u.slot("velocity") + g
    direction = g + o.momentum * velocity if o.nesterov else velocity
    return u.next(u.p - u.rate * direction, velocity=velocity)


def _adam(o: optim.Adam, u: _Update) -> dict[str, Array]:
    """Update by Adam: D. Kingma, J. Ba, ICLR 2015; AdamW by I. Loshchilov, F. Hutter, ICLR 2019."""
    decoupled = isinstance(o, optim.AdamW)
    g = u.gradient if decoupled else u.g
    mean = _mixed(u.slot("mean"), g, o.beta1)
    square = _mixed(u.slot("square"), g**2, o.beta2)
    unbiased = mean / (1 - o.beta1**u.t), square / (1 - o.beta2**u.t)
    step = u.rate * unbiased[0] / (np.sqrt(unbiased[1]) + o.eps)
    shrunk = u.p * (1 - u.rate * u.decay) if decoupled else u.p
    return u.next(shrunk - step, mean=mean, square=square)


def _nadam(o: optim.NAdam, u: _Update) -> dict[str, Array]:
    """Update by NAdam: T. Dozat, ICLR 2016 workshop, as in torch.optim.NAdam."""
    mean = _mixed(u.slot("mean"), u.g, o.beta1)
    square = _mixed(u.slot("square"), u.g**2, o.beta2)
    now, ahead = (o.beta1 * (1 - 0.96 ** (t * o.momentum_decay) / 2) for t in (u.t, u.t + 1))
    kept = next(key for key in u.state if key.startswith("momenta."))
    total = u.state[kept] * now
    direction = (1 - now) / (1 - total) * u.g + ahead / (1 - total * ahead) * mean
    step = u.rate * direction / (np.sqrt(square / (1 - o.beta2**u.t)) + o.eps)
    return u.next(u.p - step, mean=mean, square=square) | {kept: total}


def _adamax(o: optim.Adamax, u: _Update) -> dict[str, Array]:
    """Update by Adamax: D. Kingma, J. Ba, ICLR 2015, algorithm 2, as in torch.optim.Adamax."""
    mean = _mixed(u.slot("mean"), u.g, o.beta1)
    largest = np.maximum(o.beta2 * u.slot("largest"), np.abs(u.g) + o.eps)
    return u.next(u.p - u.rate / (1 - o.beta1**u.t) * mean / largest, mean=mean, largest=largest)


def _rmsprop(o: optim.RMSprop, u: _Update) -> dict[str, Array]:
    """Update by RMSprop: G. Hinton, 2012, as in torch.optim.RMSprop."""
    square = _mixed(u.slot("square"), u.g**2, o.alpha)
    direction = u.g / (np.sqrt(square) + o.eps)
    if not o.momentum:
        return u.next(u.p - u.rate * direction, square=square)
    velocity = o.momentum * u.slot("velocity") + direction
    return u.next(u.p - u.rate * velocity, square=square, velocity=velocity)


def _adagrad(o: optim.Adagrad, u: _Update) -> dict[str, Array]:
    """Update by Adagrad: J. Duchi et al., JMLR 2011, as in torch.optim.Adagrad."""
    total = u.slot("sum") + u.g**2
    return u.next(u.p - u.rate * u.g / (np.sqrt(total) + o.eps), sum=total)


def _adadelta(o: optim.Adadelta, u: _Update) -> dict[str, Array]:
    """Update by Adadelta: M. Zeiler, 2012, as in torch.optim.Adadelta."""
    square = _mixed(u.slot("square"), u.g**2, o.rho)
    change = np.sqrt((u.slot("delta") + o.eps) / (square + o.eps)) * u.g
    delta = _mixed(u.slot("delta"), change**2, o.rho)
    return u.next(u.p - u.rate * change, square=square, delta=delta)


def _lion(o: optim.Lion, u: _Update) -> dict[str, Array]:
    """Update by Lion: X. Chen et al., 2023, algorithm 2."""
    direction = np.sign(_mixed(u.slot("mean"), u.gradient, o.beta1))
    mean = _mixed(u.slot("mean"), u.gradient, o.beta2)
    return u.next(u.p - u.rate * (direction + u.decay * u.p), mean=mean)


RULES: Mapping[type[Optimizer], Callable[[Any, _Update], dict[str, Array]]] = {
    optim.SGD: _sgd,
    optim.Adam: _adam,
    optim.AdamW: _adam,
    optim.NAdam: _nadam,
    optim.Adamax: _adamax,
    optim.RMSprop: _rmsprop,
    optim.Adagrad: _adagrad,
    optim.Adadelta: _adadelta,
    optim.Lion: _lion,
}
"""The rule of each optimizer: a parameter and its slots after the update."""


def factor(schedule: Schedule, updates: int) -> float:
    """Return the factor on the rate after that many updates; a negative number counts as 0."""
    u = max(updates, 0)
    if isinstance(schedule, WarmUp):
        after = 1.0 if schedule.then is None else factor(schedule.then, updates - schedule.steps)
        return min((u + 1) / schedule.steps, 1.0) * after
    if isinstance(schedule, Cosine):
        warm = min((u + 1) / schedule.warmup, 1.0) if schedule.warmup else 1.0
        done = max(updates - schedule.warmup, 0) / (schedule.total - schedule.warmup)
        share = 0.5 * (1 + cos(pi * min(done, 1.0)))
        return warm * (schedule.floor + (1 - schedule.floor) * share)
    assert isinstance(schedule, Step)
    return float(schedule.factor ** (u // schedule.every))
