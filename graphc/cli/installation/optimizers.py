"""The steps of optimizers, by their formulas in plain NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import graphc as gc
from graphc.backends.backend import USUAL
from graphc.cli.installation.plain import Array
from graphc.cli.installation.trial import ROUGH, Trial, near

STEPS = 6
KINDS: tuple[gc.optim.Optimizer, ...] = (
    gc.SGD(lr=0.1),
    gc.SGD(lr=0.1, momentum=0.8),
    gc.SGD(lr=0.1, momentum=0.8, nesterov=True),
    gc.Adagrad(lr=0.1),
    gc.Adadelta(lr=0.7, rho=0.8),
    gc.RMSprop(lr=0.02, alpha=0.8),
    gc.RMSprop(lr=0.02, momentum=0.7),
    gc.Adam(lr=0.05, beta1=0.8, beta2=0.95),
    gc.AdamW(lr=0.05),
    gc.Adamax(lr=0.05, beta2=0.9),
    gc.NAdam(lr=0.05),
    gc.Lion(lr=0.02, beta1=0.8),
)
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"weight_decay": 0.1},
    {"clip_value": 0.3, "weight_decay": 0.05},
    {"clip_norm": 0.5},
    {"accumulate": 2},
    {"ema": 0.7},
    {"schedule": gc.Cosine(total=5, floor=0.1, warmup=2)},
    {"schedule": gc.WarmUp(3, gc.Step(2, 0.5))},
)


def optimizers(trial: Trial) -> str:
    """Check each optimizer with each of the options that all have."""
    here = [name for name in trial.backends() if name in USUAL]
    cases = [(kind, more) for kind in KINDS for more in OPTIONS]
    for number, (kind, more) in enumerate(cases):
        optimizer = type(kind)(**{**_given(kind), **more})
        backend = here[(number + number // len(OPTIONS)) % len(here)]
        with trial.case(f"{optimizer!r} on {backend}"):
            _check(trial, optimizer, backend)
    return f"{len(cases)} optimizers, {STEPS} steps each by formulas"


def _given(kind: Any) -> dict[str, Any]:
    return {name: getattr(kind, name) for name in kind.__dataclass_fields__}


def _check(trial: Trial, optimizer: Any, backend: str) -> None:
    """Compare weights after each step with the formula, and their averages at the end."""
    net = gc.Net("line", dtype="float64")
    w, b = (net.parameter(name, shape, init="ones") for name, shape in SHAPES.items())
    loss = gc.sum(w * gc.mean(net.input("for_w", (gc.N, 3, 5)), 0))
    net.loss("loss", loss + gc.sum(b * gc.mean(net.input("for_b", (gc.N, 5)), 0)))
    ex = gc.Executor(gc.compile(net, batch=4, optimizer=optimizer, backend=backend))
    right = {name: np.ones(shape) for name, shape in SHAPES.items()}
    plain, kept, average = Plain(optimizer), list[dict[str, Array]](), dict[str, Array]()
    for step in range(STEPS * optimizer.accumulate):
        feeds = {f"for_{n}": trial.rng.normal(size=(4, *shape)) for n, shape in SHAPES.items()}
        ex.step(feeds)
        kept.append({name: feeds[f"for_{name}"].mean(0) for name in SHAPES})
        if len(kept) == optimizer.accumulate:
            mean = {name: np.mean([g[name] for g in kept], 0) for name in SHAPES}
            right, kept = plain.step(right, mean), []
            keep = optimizer.ema or 0.0
            average = {n: keep * average.get(n, w) + (1 - keep) * w for n, w in right.items()}
        for name in SHAPES:
            what = f"{name} after step {step + 1}"
            near(what, right[name], ex.parameters[name], ROUGH["float64"])
    if optimizer.ema:
        for name in SHAPES:
            near(f"the average of {name}", average[name], ex.averaged().parameters[name], 1e-7)


SHAPES = {"w": (3, 5), "b": (5,)}
"""The parameters: only the first decays."""


class Plain:
    """An optimizer in plain NumPy: its slots and the number of the update."""

    def __init__(self, optimizer: Any) -> None:
        self.o, self.t, self.slots = optimizer, 0, dict[tuple[str, str], Any]()
        self.momenta = 1.0

    def step(self, weights: dict[str, Array], gradients: dict[str, Array]) -> dict[str, Array]:
        """Return the next weights."""
        o, rate = self.o, self.o.lr * _factor(self.o.schedule, self.t)
        self.t += 1
        g = dict(gradients)
        if o.clip_value:
            g = {name: np.clip(x, -o.clip_value, o.clip_value) for name, x in g.items()}
        if o.clip_norm:
            norm = math.sqrt(sum((x * x).sum() for x in g.values()))
            g = {name: x * min(1.0, o.clip_norm / norm) for name, x in g.items()}
        mu, ahead = (0.9 * (1 - 0.5 * 0.96 ** (0.004 * t)) for t in (self.t, self.t + 1))
        self.momenta *= mu
        found = {}
        for name, w in weights.items():
            decay, apart = (o.weight_decay if w.ndim > 1 else 0.0), type(o) in (gc.AdamW, gc.Lion)
            grown = g[name] + (0 if apart else decay * w)
            own = {part: value for (of, part), value in self.slots.items() if of == name}
            move, new = self._move(own, grown, mu, ahead)
            self.slots.update({(name, part): value for part, value in new.items()})
            found[name] = w * (1 - rate * decay * apart) - rate * move
        return found

    def _move(self, s: dict[str, Any], g: Array, mu: float, ahead: float) -> tuple[Array, Any]:
        """Return the move of a weight before the rate, and the next slots."""
        o, kind, t = self.o, type(self.o), self.t
        v, q, d = (s.get(name, 0.0 * g) for name in "vqd")
        if kind is gc.SGD:
            v = o.momentum * v + g
            return (g + o.momentum * v if o.nesterov else v), {"v": v}
        if kind is gc.Adagrad:
            q = q + g * g
            return g / (np.sqrt(q) + o.eps), {"q": q}
        if kind is gc.Adadelta:
            q = o.rho * q + (1 - o.rho) * g * g
            move = g * np.sqrt((d + o.eps) / (q + o.eps))
            return move, {"q": q, "d": o.rho * d + (1 - o.rho) * move * move}
        if kind is gc.RMSprop:
            q = o.alpha * q + (1 - o.alpha) * g * g
            v = o.momentum * v + g / (np.sqrt(q) + o.eps)
            return v, {"q": q, "v": v}
        if kind is gc.Lion:
            move = np.sign(o.beta1 * v + (1 - o.beta1) * g)
            return move, {"v": o.beta2 * v + (1 - o.beta2) * g}
        v = o.beta1 * v + (1 - o.beta1) * g
        if kind is gc.Adamax:
            q = np.maximum(o.beta2 * q, abs(g) + o.eps)
            return v / q / (1 - o.beta1**t), {"v": v, "q": q}
        q = o.beta2 * q + (1 - o.beta2) * g * g
        size = np.sqrt(q / (1 - o.beta2**t)) + o.eps
        if kind is gc.NAdam:
            later = ahead / (1 - self.momenta * ahead)
            return ((1 - mu) / (1 - self.momenta) * g + later * v) / size, {"v": v, "q": q}
        return v / (1 - o.beta1**t) / size, {"v": v, "q": q}


def _factor(schedule: Any, done: int) -> float:
    """Return the factor of the rate after so many updates."""
    if schedule is None:
        return 1.0
    if isinstance(schedule, gc.WarmUp):
        return min(1.0, (done + 1) / 3) * 0.5 ** (max(done - 3, 0) // 2)
    part = min(max((done - 2) / 3, 0.0), 1.0)
    return min(1.0, (done + 1) / 2) * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * part)))
