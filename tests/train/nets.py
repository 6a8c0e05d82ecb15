"""Small nets for the tests of training."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc as gc
from tests.plans import compiled

BATCH = 8


def classes(dropout: bool = True, weighted: bool = False) -> gc.Net:
    net = gc.Net("classes")
    x = net.input("x", (gc.N, 4))
    y = net.input("y", (gc.N,), dtype="int64")
    w = net.input("w", (gc.N,)) if weighted else None
    h = gc.relu(gc.batchnorm(gc.affine(x, 8, name="hidden"), name="norm"))
    if dropout:
        h = gc.dropout(h, keep_prob=0.8, name="drop")
    scores = gc.affine(h, 3, name="scores")
    net.output("scores", scores)
    net.output("accuracy", gc.accuracy(scores, y))
    net.loss("loss", gc.softmax_loss(scores, y, weight=w))
    return net


def executor(net: gc.Net | None = None, **choices: Any) -> gc.Executor:
    options = {"optimizer": gc.Adam(lr=0.01), "batch": BATCH, **choices}
    return gc.Executor(gc.compile(net, **options) if net else compiled(classes, **options))


def table(rows: int = 45, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, rows)
    centres = np.random.default_rng(9).normal(size=(3, 4))
    x = centres[y] + rng.normal(scale=0.4, size=(rows, 4))
    return x.astype(np.float32), y


def bits(ex: gc.Executor) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in ex.snapshot().items()}
