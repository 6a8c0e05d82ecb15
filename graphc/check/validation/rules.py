"""Optimizers in plain NumPy, written from their papers and from PyTorch's conventions.

They share no code with graphc's own update rules, for which they are the oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from math import cos, pi, sqrt

import numpy as np

from graphc.declare.optim import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Group,
    Lion,
    NAdam,
    Optimizer,
    RMSprop,
)
from graphc.declare.schedules import Cosine, Schedule, Step, WarmUp
from graphc.ir.op import Array

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
        found |= RULES[type(optimizer)](optimizer, name, g, decay, rate, updates + 1, state)
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
    return rate, optimizer.weight_decay if _decays(optimizer, name, state[name].ndim) else 0.0


def trained(optimizer: Optimizer, name: str) -> bool:
    """Return whether a parameter is not in a frozen group."""
    group = _group(optimizer, name)
    return group is None or not group.frozen


def _group(optimizer: Optimizer, name: str) -> Group | None:
    matching = (g for g in optimizer.groups if any(fnmatchcase(name, p) for p in g.names))
    return next(matching, None)


def _decays(optimizer: Optimizer, name: str, rank: int) -> bool:
    if optimizer.decay is None:
        return rank >= 2
    return any(fnmatchcase(name, pattern) for pattern in optimizer.decay)


def _sgd(
    optimizer: SGD, name: str, g: Array, decay: float, rate: float, t: int, state: States
) -> dict[str, Array]:
    """Update by SGD: I. Sutskever et al., ICML 2013, as in torch.optim.SGD."""
    g = g + decay * state[name]
    if not optimizer.momentum:
        return {name: state[name] - rate * g}
    velocity = optimizer.momentum * state[f"{name}.velocity"] + g
    direction = g + optimizer.momentum * velocity if optimizer.nesterov else velocity
    return {f"{name}.velocity": velocity, name: state[name] - rate * direction}


def _adam(
    optimizer: Adam, name: str, g: Array, decay: float, rate: float, t: int, state: States
) -> dict[str, Array]:
    """Update by Adam: D. Kingma, J. Ba, ICLR 2015; AdamW by I. Loshchilov, F. Hutter, ICLR 2019."""
    p = state[name]
    decoupled = isinstance(optimizer, AdamW)
    if not decoupled:
        g = g + decay * p
    mean = optimizer.beta1 * state[f"{name}.mean"] + (1 - optimizer.beta1) * g
    square = optimizer.beta2 * state[f"{name}.square"] + (1 - optimizer.beta2) * g**2
    unbiased = mean / (1 - optimizer.beta1**t), square / (1 - optimizer.beta2**t)
    step = rate * unbiased[0] / (np.sqrt(unbiased[1]) + optimizer.eps)
    shrunk = p * (1 - rate * decay) if decoupled else p
    return {f"{name}.mean": mean, f"{name}.square": square, name: shrunk - step}


def _nadam(
    optimizer: NAdam, name: str, g: Array, decay: float, rate: float, t: int, state: States
) -> dict[str, Array]:
    """Update by NAdam: T. Dozat, ICLR 2016 workshop, as in torch.optim.NAdam."""
    p, beta1, beta2 = state[name], optimizer.beta1, optimizer.beta2
    g = g + decay * p
    mean = beta1 * state[f"{name}.mean"] + (1 - beta1) * g
    square = beta2 * state[f"{name}.square"] + (1 - beta2) * g**2
    now, ahead = (
        beta1 * (1 - 0.96 ** (step * optimizer.momentum_decay) / 2) for step in (t, t + 1)
    )
    kept = next(key for key in state if key.startswith("momenta."))
    total = state[kept] * now
    direction = (1 - now) / (1 - total) * g + ahead / (1 - total * ahead) * mean
    step = rate * direction / (np.sqrt(square / (1 - beta2**t)) + optimizer.eps)
    return {f"{name}.mean": mean, f"{name}.square": square, kept: total, name: p - step}


def _adamax(
    optimizer: Adamax, name: str, g: Array, decay: float, rate: float, t: int, state: States
) -> dict[str, Array]:
    """Update by Adamax: D. Kingma, J. Ba, ICLR 2015, algorithm 2, as in torch.optim.Adamax."""
    g = g + decay * state[name]
    mean = optimizer.beta1 * state[f"{name}.mean"] + (1 - optimizer.beta1) * g
    size = np.maximum(optimizer.beta2 * state[f"{name}.largest"], np.abs(g) + optimizer.eps)
    step = rate / (1 - optimizer.beta1**t) * mean / size
    return {f"{name}.mean": mean, f"{name}.largest": size, name: state[name] - step}


def _rmsprop(
    optimizer: RMSprop, name: str, g: Array, decay: float, rate: float, t: int, state: States
) -> dict[str, Array]:
    """Update by RMSprop: G. Hinton, 2012, as in torch.optim.RMSprop."""
    g = g + decay * state[name]
    square = optimizer.alpha * state[f"{name}.square"] + (1 - optimizer.alpha) * g**2
    direction = g / (np.sqrt(square) + optimizer.eps)
    slots = {f"{name}.square": square}
    if optimizer.momentum:
        direction = optimizer.momentum * state[f"{name}.velocity"] + direction
        slots[f"{name}.velocity"] = direction
    return slots | {name: state[name] - rate * direction}


def _adagrad(
    optimizer: Adagrad, name: str, g: Array, decay: float, rate: float, t: int, state: States
) -> dict[str, Array]:
    """Update by Adagrad: J. Duchi et al., JMLR 2011, as in torch.optim.Adagrad."""
    g = g + decay * state[name]
    total = state[f"{name}.sum"] + g**2
    step = rate * g / (np.sqrt(total) + optimizer.eps)
    return {f"{name}.sum": total, name: state[name] - step}


def _adadelta(
    optimizer: Adadelta, name: str, g: Array, decay: float, rate: float, t: int, state: States
) -> dict[str, Array]:
    """Update by Adadelta: M. Zeiler, 2012, as in torch.optim.Adadelta."""
    g, rho, eps = g + decay * state[name], optimizer.rho, optimizer.eps
    square = rho * state[f"{name}.square"] + (1 - rho) * g**2
    change = np.sqrt((state[f"{name}.delta"] + eps) / (square + eps)) * g
    delta = rho * state[f"{name}.delta"] + (1 - rho) * change**2
    step = rate * change
    return {f"{name}.square": square, f"{name}.delta": delta, name: state[name] - step}


def _lion(
    optimizer: Lion, name: str, g: Array, decay: float, rate: float, t: int, state: States
) -> dict[str, Array]:
    """Update by Lion: X. Chen et al., 2023, algorithm 2."""
    mean, p = state[f"{name}.mean"], state[name]
    direction = np.sign(optimizer.beta1 * mean + (1 - optimizer.beta1) * g)
    kept = optimizer.beta2 * mean + (1 - optimizer.beta2) * g
    return {f"{name}.mean": kept, name: p - rate * (direction + decay * p)}


RULES: Mapping[type[Optimizer], Callable[..., dict[str, Array]]] = {
    SGD: _sgd,
    Adam: _adam,
    AdamW: _adam,
    NAdam: _nadam,
    Adamax: _adamax,
    RMSprop: _rmsprop,
    Adagrad: _adagrad,
    Adadelta: _adadelta,
    Lion: _lion,
}
"""The rule of each optimizer: a parameter and its slots after update number t, from 1 on."""


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
