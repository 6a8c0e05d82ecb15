"""The optimizers, by the formulas of their documentation."""

from __future__ import annotations

import fnmatch
from typing import Any

import torch
from torch import Tensor

import graphc as gc

from .torch_elements import sign

Slots = dict[str, Tensor]


def factor(schedule: Any, u: int) -> float:
    """Return a schedule's factor on the rate at update u, counted from 0."""
    import math

    if schedule is None:
        return 1.0
    if isinstance(schedule, gc.Step):
        return float(schedule.factor ** (u // schedule.every))
    if isinstance(schedule, gc.WarmUp):
        return (
            (u + 1) / schedule.steps
            if u < schedule.steps
            else factor(schedule.then, u - schedule.steps)
        )
    if u < schedule.warmup:
        return (u + 1) / schedule.warmup
    share = min(1.0, (u - schedule.warmup) / max(1, schedule.total - schedule.warmup))
    return float(schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * share)))


def matches(name: str, patterns: Any) -> bool:
    """Return whether one of the patterns, or the only one, matches a name."""
    patterns = (patterns,) if isinstance(patterns, str) else patterns
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


class Optimizer:
    """What an optimizer of graphc's does to parameters in float64."""

    def __init__(self, options: gc.optim.Optimizer) -> None:
        self.options: Any = options
        self.updates = self.seen = 0
        self.sums: Slots = {}
        self.slots: dict[str, Slots] = {}
        self.averages: Slots = {}
        self.product = 1.0

    def frozen(self, name: str) -> bool:
        """Return whether a parameter is not trained."""
        return bool(getattr(self._group(name), "frozen", False))

    def _group(self, name: str) -> Any:
        return next((g for g in self.options.groups if matches(name, g.names)), None)

    def accumulated(self, parameters: Slots, gradients: Slots) -> Slots:
        """Take a step's gradients, and return the parameters after it."""
        self.seen += 1
        for name, gradient in gradients.items():
            self.sums[name] = self.sums.get(name, 0) + gradient / self.options.accumulate
        if self.seen % self.options.accumulate:
            return parameters
        gradients, self.sums = self.sums, {}
        return self.update(parameters, gradients)

    def update(self, parameters: Slots, gradients: Slots) -> Slots:
        """Return the parameters after an update by these gradients."""
        o = self.options
        gradients = {n: g for n, g in gradients.items() if not self.frozen(n)}
        if o.clip_value is not None:
            gradients = {n: g.clamp(-o.clip_value, o.clip_value) for n, g in gradients.items()}
        if o.clip_norm is not None:
            whole = torch.stack([(g * g).sum() for g in gradients.values()]).sum().sqrt()
            share = torch.clamp(o.clip_norm / torch.clamp(whole, min=1e-300), max=1.0)
            gradients = {n: g * share for n, g in gradients.items()}
        scale = factor(o.schedule, self.updates)
        self.updates += 1
        self._count()
        after = dict(parameters)
        for name, gradient in gradients.items():
            after[name] = self._updated(name, parameters[name], gradient, scale)
            if o.ema is not None:
                old = self.averages.get(name, after[name])
                self.averages[name] = o.ema * old + (1 - o.ema) * after[name]
        return after

    def _count(self) -> None:
        if isinstance(self.options, gc.NAdam):
            self.mu, self.next = (self._mu(t) for t in (self.updates, self.updates + 1))
            self.product *= self.mu

    def _mu(self, t: int) -> float:
        o = self.options
        return float(o.beta1 * (1 - 0.5 * 0.96 ** (t * o.momentum_decay)))

    def _updated(self, name: str, p: Tensor, g: Tensor, scale: float) -> Tensor:
        o, group = self.options, self._group(name)
        lr = o.lr if group is None or group.lr is None else group.lr
        decay = (
            o.weight_decay if (p.ndim >= 2 if o.decay is None else matches(name, o.decay)) else 0.0
        )
        if group is not None and group.weight_decay is not None:
            decay = group.weight_decay
        lr *= scale
        decoupled = isinstance(o, (gc.AdamW, gc.Lion))
        if not decoupled:
            g = g + decay * p
        step = getattr(self, f"_{type(o).__name__.lower()}")(o, self.slots.setdefault(name, {}), g)
        return p - lr * step - (lr * decay * p if decoupled else 0)

    def _mean(self, slots: Slots, key: str, old: float, value: Tensor) -> Tensor:
        slots[key] = old * slots.get(key, torch.zeros_like(value)) + (1 - old) * value
        return slots[key]

    def _sgd(self, o: Any, slots: Slots, g: Tensor) -> Tensor:
        if not o.momentum:
            return g
        slots["v"] = o.momentum * slots.get("v", torch.zeros_like(g)) + g
        return g + o.momentum * slots["v"] if o.nesterov else slots["v"]

    def _adam(self, o: Any, slots: Slots, g: Tensor) -> Tensor:
        t = self.updates
        m = self._mean(slots, "m", o.beta1, g) / (1 - o.beta1**t)
        s = self._mean(slots, "s", o.beta2, g * g) / (1 - o.beta2**t)
        return m / (s.sqrt() + o.eps)

    _adamw = _adam

    def _nadam(self, o: Any, slots: Slots, g: Tensor) -> Tensor:
        m = self._mean(slots, "m", o.beta1, g)
        s = self._mean(slots, "s", o.beta2, g * g) / (1 - o.beta2**self.updates)
        now = (1 - self.mu) / (1 - self.product)
        later = self.next / (1 - self.product * self.next)
        return (now * g + later * m) / (s.sqrt() + o.eps)

    def _adamax(self, o: Any, slots: Slots, g: Tensor) -> Tensor:
        m = self._mean(slots, "m", o.beta1, g)
        old = slots.get("u", torch.zeros_like(g))
        slots["u"] = torch.maximum(o.beta2 * old, g.abs() + o.eps)
        return m / (1 - o.beta1**self.updates) / slots["u"]

    def _rmsprop(self, o: Any, slots: Slots, g: Tensor) -> Tensor:
        step = g / (self._mean(slots, "s", o.alpha, g * g).sqrt() + o.eps)
        if not o.momentum:
            return step
        slots["v"] = o.momentum * slots.get("v", torch.zeros_like(g)) + step
        return slots["v"]

    def _adagrad(self, o: Any, slots: Slots, g: Tensor) -> Tensor:
        slots["s"] = slots.get("s", torch.zeros_like(g)) + g * g
        return g / (slots["s"].sqrt() + o.eps)

    def _adadelta(self, o: Any, slots: Slots, g: Tensor) -> Tensor:
        s = self._mean(slots, "s", o.rho, g * g)
        d = g * (slots.get("a", torch.zeros_like(g)) + o.eps).sqrt() / (s + o.eps).sqrt()
        self._mean(slots, "a", o.rho, d * d)
        return d

    def _lion(self, o: Any, slots: Slots, g: Tensor) -> Tensor:
        m = slots.get("m", torch.zeros_like(g))
        slots["m"] = o.beta2 * m + (1 - o.beta2) * g
        return sign(o.beta1 * m + (1 - o.beta1) * g)
