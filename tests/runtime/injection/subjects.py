"""Calls to be interrupted, each on an executor that is made ready for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import numpy as np

import graphc as gc
from graphc.backends.native import libraries
from tests.train.nets import classes, table

X, Y = table(8)
FEEDS = {"x": X, "y": Y}
OTHER = {"x": table(5, seed=1)[0], "y": table(5, seed=1)[1]}
COTANGENT = np.random.default_rng(3).normal(size=(8, 3)).astype(np.float32)
Make = Callable[[gc.Executor], Any]

OPTIMIZERS: Mapping[str, Any] = {
    "adam": gc.Adam(lr=0.01, ema=0.9),
    "accumulate": gc.SGD(lr=0.1, momentum=0.9, accumulate=2, ema=0.9),
}
OPTIONS: Mapping[str, dict[str, Any]] = {
    "numpy": {"backend": "numpy"},
    "native": {"backend": "native", "threads": 1},
    "threads": {"backend": "native", "threads": 2},
}
SHARDS: Mapping[str, dict[str, Any]] = {
    "": {},
    "shards": {"shards": 2},
    "in step": {"shards": 2, "sync_batchnorm": True},
}


@lru_cache
def plan(where: str, optimizer: str = "adam", shards: str = "") -> gc.Plan:
    return gc.compile(
        classes(), batch=8, optimizer=OPTIMIZERS[optimizer], **OPTIONS[where], **SHARDS[shards]
    )


@dataclass(frozen=True)
class Subject:
    """A call.  `ready` prepares an executor that has run everything before, or a `fresh` one."""

    name: str
    call: Make
    ready: Make = lambda ex: None
    optimizer: str = "adam"
    shards: str = ""
    fresh: bool = False

    def executor(self, where: str) -> gc.Executor:
        """One of the plan, at its first state."""
        return gc.Executor(plan(where, self.optimizer, self.shards), seed=5)

    def warm(self, ex: gc.Executor) -> None:
        """Run everything once, so that all is bound."""
        for _ in range(4):
            ex.step(FEEDS)
        if not self.shards:
            ex.forward(FEEDS)
        if not self.shards and self.optimizer == "adam":
            for _ in range(2):
                ex.forward(FEEDS, train=True)
                ex.backward(scores=COTANGENT)
                ex.backward()
                ex.update()
        self.ready(ex)
        self.call(ex)


@lru_cache
def flat() -> np.ndarray:
    ex = gc.Executor(plan("numpy"), seed=9)
    return ex.parameters.flat()


@lru_cache
def other(where: str) -> gc.Executor:
    return gc.Executor(plan(where), seed=9)


def _where(ex: gc.Executor) -> str:
    return "numpy" if ex.plan.backend == "numpy" else "native"


def _forward(ex: gc.Executor) -> None:
    ex.forward(FEEDS, train=True)


def _backward(ex: gc.Executor) -> dict[str, Any]:
    ex.forward(FEEDS, train=True)
    return ex.backward()


def _gradients() -> dict[str, Any]:
    return _backward(gc.Executor(plan("numpy"), seed=9))


def _assign(ex: gc.Executor) -> None:
    ex.parameters["hidden.weight"] = np.full((4, 8), 0.25)


def _hyper(ex: gc.Executor) -> None:
    ex.hyper["lr"] = 0.5


def _restore(ex: gc.Executor) -> None:
    ex.state = dict(other(_where(ex)).state)


def _compiled(ex: gc.Executor) -> None:
    """A step whose code is neither in the process nor on disk."""
    if ex.plan.backend == "native":
        libraries._loaded.clear()
        libraries._recent.clear()
    with patch.object(libraries, "cached", lambda key: None):
        ex.step(FEEDS)


SUBJECTS = [
    Subject("step", lambda ex: ex.step(FEEDS)),
    Subject("step, converted", lambda ex: ex.step(x=X.astype(np.float64), y=Y.tolist())),
    Subject("step, other rows", lambda ex: ex.step(OTHER)),
    Subject("step, accumulating", lambda ex: ex.step(FEEDS), optimizer="accumulate"),
    Subject("step, updating", lambda ex: ex.step(FEEDS), lambda ex: ex.step(FEEDS), "accumulate"),
    Subject("first step", lambda ex: ex.step(FEEDS), fresh=True),
    Subject(
        "first update",
        lambda ex: ex.step(FEEDS),
        lambda ex: ex.step(FEEDS),
        "accumulate",
        fresh=True,
    ),
    Subject("step of shards", lambda ex: ex.step(FEEDS), shards="shards"),
    Subject(
        "step of shards, updating",
        lambda ex: ex.step(FEEDS),
        lambda ex: ex.step(FEEDS),
        "accumulate",
        "shards",
    ),
    Subject("step of shards in step", lambda ex: ex.step(FEEDS), shards="in step"),
    Subject("first step of shards", lambda ex: ex.step(FEEDS), shards="shards", fresh=True),
    Subject("forward", lambda ex: ex.forward(FEEDS)),
    Subject("forward, converted", lambda ex: ex.forward(x=X.astype(np.float64), y=Y.tolist())),
    Subject("first forward", lambda ex: ex.forward(FEEDS), fresh=True),
    Subject("forward after forward(train)", lambda ex: ex.forward(OTHER), _forward),
    Subject("forward(train)", _forward),
    Subject("forward(train) after another", lambda ex: ex.forward(OTHER, train=True), _backward),
    Subject("backward", lambda ex: ex.backward(), _forward),
    Subject("first backward", _backward, fresh=True),
    Subject("backward by cotangents", lambda ex: ex.backward(scores=COTANGENT), _forward),
    Subject("update", lambda ex: ex.update(), _backward),
    Subject("update by gradients", lambda ex: ex.update(_gradients()), _backward),
    Subject(
        "update of what is accumulated",
        lambda ex: ex.update(),
        lambda ex: ex.step(FEEDS),
        "accumulate",
    ),
    Subject("predict", lambda ex: ex.predict(np.concatenate([X, X]))),
    Subject("evaluate", lambda ex: ex.evaluate(X, Y)),
    Subject("parameters[name] =", _assign),
    Subject("parameters.flat", lambda ex: ex.parameters.flat()),
    Subject("parameters.load_flat", lambda ex: ex.parameters.load_flat(flat())),
    Subject("copy_from", lambda ex: ex.parameters.copy_from(other(_where(ex)).parameters)),
    Subject(
        "copy_from, mixed", lambda ex: ex.parameters.copy_from(other(_where(ex)).parameters, 0.5)
    ),
    Subject(
        "copy_from, mixed arrays",
        lambda ex: ex.parameters.copy_from(dict(other(_where(ex)).parameters), 0.5),
    ),
    Subject("hyper[name] =", _hyper),
    Subject("snapshot", lambda ex: ex.snapshot()),
    Subject("state =", _restore, _backward),
]

COMPILED = Subject("first step, compiled", _compiled, fresh=True)
"""It takes seconds."""
