"""Small nets for ranks, and how one is trained."""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import Any

import numpy as np

import graphc as gc
from graphc.runtime.distributed.communicator import Communicator

ROWS = 32
_ONE_AT_A_TIME = Lock()


@cache
def classes(
    batchnorm: bool = True, dropout: bool = True, loss: str = "mean", name: str = "classes"
) -> gc.Net:
    net = gc.Net(name)
    x, y = net.input("x", (gc.N, 20)), net.input("y", (gc.N,), dtype="int64")
    h = x
    for width in (33, 17):
        h = gc.affine(h, width)
        h = gc.batchnorm(h) if batchnorm else h
        h = gc.relu(h)
        h = gc.dropout(h, keep_prob=0.8) if dropout else h
    scores = gc.affine(h, 5, name="scores")
    net.output("scores", scores)
    weight = net.input("weight", (gc.N,)) if loss == "weighted" else None
    reduction = "sum" if loss == "sum" else "mean"
    net.loss("loss", gc.softmax_loss(scores, y, weight=weight, reduction=reduction))
    return net


def table(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 5, rows)
    centres = np.random.default_rng(9).normal(size=(5, 20))
    return (centres[y] + rng.normal(size=(rows, 20))).astype(np.float32), y


def feeds(net: gc.Net, n: int, seed: int) -> dict[str, Any]:
    x, y = table(n, seed)
    weight = np.random.default_rng(seed).uniform(0.5, 2, n).astype(np.float32)
    all_feeds = {"x": x, "y": y, "weight": weight}
    return {name: array for name, array in all_feeds.items() if name in net.graph()}


@cache
def _plan(net: gc.Net, **options: Any) -> gc.Plan:
    return gc.compile(net, **options)


def executor(
    net: gc.Net, ranks: Communicator | None = None, *, seed: int = 1, **options: Any
) -> gc.Executor:
    """An executor with parameters of its own; equal plans are compiled once for all ranks."""
    chosen = {"batch": ROWS, "optimizer": gc.SGD(lr=0.1, momentum=0.9), "threads": 1, **options}
    if ranks is not None:
        chosen["ranks"] = ranks.size
    with _ONE_AT_A_TIME:
        plan = _plan(net, **chosen)
    return gc.Executor(plan, seed=seed, communicator=ranks)


def stepped(ex: gc.Executor, net: gc.Net, steps: int = 5) -> list[float]:
    """The losses of some steps, of batches that cannot be cut evenly, too."""
    return [ex.step(feeds(net, (ROWS, 29, 3)[i % 3], i)) for i in range(steps)]


def bits(ex: gc.Executor) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in ex.snapshot().items()}
