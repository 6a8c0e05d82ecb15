"""Optimizers in plain NumPy, written from their papers and from PyTorch's conventions.

They share no code with graphc's own update rules, which they are the oracle of.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from math import cos, pi, sqrt

import numpy as np

from graphc.op import Array
from graphc.optim import SGD, Adagrad, Adam, AdamW, Lion, Optimizer, RMSprop
from graphc.schedules import Cosine, Schedule, Step, WarmUp


def has_rule(optimizer: Optimizer) -> bool:
    """Whether the optimizer and its schedule are graphc's own, not a user's."""
    schedule = optimizer.schedule
    own = type(optimizer) in (SGD, Adam, AdamW, RMSprop, Adagrad, Lion)
    return own and (schedule is None or _known(schedule))


def _known(schedule: Schedule) -> bool:
    if isinstance(schedule, WarmUp) and schedule.then is not None:
        return type(schedule) is WarmUp and _known(schedule.then)
    return type(schedule) in (WarmUp, Cosine, Step)


def next_states(
    optimizer: Optimizer, gradients: Mapping[str, Array], state: Mapping[str, Array]
) -> dict[str, Array]:
    """Parameters, slots and the counter of updates after one update by these gradients."""
    updates = int(state["updates"])
    rate = float(state["hyper.lr"])
    if optimizer.schedule is not None:
        rate *= factor(optimizer.schedule, updates)
    if optimizer.clip_norm is not None:
        norm = sqrt(sum(float(np.vdot(g, g)) for g in gradients.values()))
        scale = min(1.0, float(state["hyper.clip_norm"]) / norm) if norm else 1.0
        gradients = {name: g * scale for name, g in gradients.items()}
    found: dict[str, Array] = {"updates": np.asarray(updates + 1)}
    for name, g in gradients.items():
        decay = optimizer.weight_decay if _decays(optimizer, name, state[name].ndim) else 0.0
        if isinstance(optimizer, Adam):
            found |= _adam(optimizer, name, g, decay, rate, updates + 1, state)
        elif isinstance(optimizer, SGD):
            found |= _sgd(optimizer, name, g + decay * state[name], rate, state)
        elif isinstance(optimizer, RMSprop):
            found |= _rmsprop(optimizer, name, g + decay * state[name], rate, state)
        elif isinstance(optimizer, Adagrad):
            found |= _adagrad(optimizer, name, g + decay * state[name], rate, state)
        elif isinstance(optimizer, Lion):
            found |= _lion(optimizer, name, g, decay, rate, state)
    return found


def _decays(optimizer: Optimizer, name: str, rank: int) -> bool:
    if optimizer.decay is None:
        return rank >= 2
    return any(fnmatchcase(name, pattern) for pattern in optimizer.decay)


def _sgd(
    optimizer: SGD, name: str, g: Array, rate: float, state: Mapping[str, Array]
) -> dict[str, Array]:
    """I. Sutskever et al., ICML 2013, as in torch.optim.SGD."""
    if not optimizer.momentum:
        return {name: state[name] - rate * g}
    velocity = optimizer.momentum * state[f"{name}.velocity"] + g
    direction = g + optimizer.momentum * velocity if optimizer.nesterov else velocity
    return {f"{name}.velocity": velocity, name: state[name] - rate * direction}


def _adam(
    optimizer: Adam,
    name: str,
    g: Array,
    decay: float,
    rate: float,
    t: int,
    state: Mapping[str, Array],
) -> dict[str, Array]:
    """D. Kingma, J. Ba, ICLR 2015; AdamW by I. Loshchilov, F. Hutter, ICLR 2019."""
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


def _rmsprop(
    optimizer: RMSprop, name: str, g: Array, rate: float, state: Mapping[str, Array]
) -> dict[str, Array]:
    """G. Hinton, 2012, as in torch.optim.RMSprop."""
    square = optimizer.alpha * state[f"{name}.square"] + (1 - optimizer.alpha) * g**2
    direction = g / (np.sqrt(square) + optimizer.eps)
    slots = {f"{name}.square": square}
    if optimizer.momentum:
        direction = optimizer.momentum * state[f"{name}.velocity"] + direction
        slots[f"{name}.velocity"] = direction
    return slots | {name: state[name] - rate * direction}


def _adagrad(
    optimizer: Adagrad, name: str, g: Array, rate: float, state: Mapping[str, Array]
) -> dict[str, Array]:
    """J. Duchi et al., JMLR 2011, as in torch.optim.Adagrad."""
    total = state[f"{name}.sum"] + g**2
    step = rate * g / (np.sqrt(total) + optimizer.eps)
    return {f"{name}.sum": total, name: state[name] - step}


def _lion(
    optimizer: Lion, name: str, g: Array, decay: float, rate: float, state: Mapping[str, Array]
) -> dict[str, Array]:
    """X. Chen et al., 2023, algorithm 2."""
    mean, p = state[f"{name}.mean"], state[name]
    direction = np.sign(optimizer.beta1 * mean + (1 - optimizer.beta1) * g)
    kept = optimizer.beta2 * mean + (1 - optimizer.beta2) * g
    return {f"{name}.mean": kept, name: p - rate * (direction + decay * p)}


def factor(schedule: Schedule, updates: int) -> float:
    """The factor on the rate after so many updates; below 0 counts as 0."""
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
