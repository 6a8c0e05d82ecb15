"""Batches that are cut in shards, and ranks that share them: what one process computes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import graphc as gc
from graphc.backends.backend import USUAL
from graphc.cli.installation.plain import Array
from graphc.cli.installation.trial import ROUGH, Trial, near, same
from graphc.runtime.distributed.loopback import run_ranks

LARGEST = 12
"""The rows of the largest batch."""
ROWS = (LARGEST, 7, 3, 1)
"""Batches that cannot be cut evenly, and that leave shards without rows."""
LOSSES = ("mean", "sum", "weights", "several")
SHARDS, RANKS = (2, 4), (2, 3)


def shards(trial: Trial) -> str:
    """Check steps of shards and of ranks with those of the batch as a whole."""
    here, count = [name for name in trial.backends() if name in USUAL], 0
    for number, loss in enumerate(LOSSES):
        backend = here[(number + trial.seed) % len(here)]
        with trial.case(f"a loss by {loss} on {backend}"):
            _check(trial, loss, backend)
        count += len(SHARDS) + len(RANKS)
    return f"{len(ROWS)} steps of each of {count} ways to share a batch, with the batch as a whole"


def _check(trial: Trial, loss: str, backend: str) -> None:
    net, fed = _net(loss), [_feeds(trial.rng, rows) for rows in ROWS]
    options: dict[str, Any] = {"optimizer": gc.SGD(lr=0.02, momentum=0.9), "backend": backend}

    def steps(rank: Any = None, **more: Any) -> tuple[Array, dict[str, Array]]:
        plan = gc.compile(net, batch=LARGEST, **options, **more)
        return _steps(gc.Executor(plan, seed=trial.seed, communicator=rank), fed)

    right = steps()
    for parts in SHARDS:
        _compare(f"{parts} shards", right, steps(shards=parts, sync_batchnorm=True))
    for size in RANKS:
        of_rank = partial(steps, ranks=size, sync_batchnorm=True)
        first, *others = run_ranks(size, of_rank)
        _compare(f"{size} ranks", right, first)
        for other in others:
            same(f"the losses of {size} ranks", first[0], other[0])


def _net(loss: str) -> gc.Net:
    """Return a net with masks of rows and of their parts, and statistics of the batch."""
    net = gc.Net("shared", dtype="float64")
    x, y = net.input("x", (gc.N, 2, 3)), net.input("y", (gc.N,), dtype="int64")
    apart = gc.dropout(gc.affine(gc.reshape(x, (-1, 3)), 4), keep_prob=0.7)
    h = gc.relu(gc.batchnorm(gc.affine(gc.reshape(apart, (gc.N, 8)), 5)))
    scores = net.output("scores", gc.affine(gc.dropout(h, keep_prob=0.7), 3))
    more: dict[str, Any] = {"reduction": "sum"} if loss == "sum" else {}
    more |= {"weight": net.input("weight", (gc.N,))} if loss == "weights" else {}
    net.loss("loss", gc.softmax_loss(scores, y, **more))
    if loss == "several":
        net.loss("size", gc.mean(h * h))
        net.loss("noise", gc.sum(gc.random_normal(scores) * scores))
    return net


def _feeds(rng: np.random.Generator, rows: int) -> dict[str, Array]:
    weight = rng.uniform(0.2, 2, rows)
    return {"x": rng.normal(size=(rows, 2, 3)), "y": rng.integers(0, 3, rows), "weight": weight}


def _steps(ex: gc.Executor, fed: list[dict[str, Array]]) -> tuple[Array, dict[str, Array]]:
    """Return the losses of some steps, and the state after them."""
    losses = [ex.step({n: a for n, a in feeds.items() if n in ex.plan.declared}) for feeds in fed]
    return np.array(losses), ex.snapshot()


def _compare(what: str, right: Any, found: Any) -> None:
    near(f"{what}: losses", right[0], found[0], ROUGH["float64"])
    for name, array in right[1].items():
        near(f"{what}: {name}", array, found[1][name], ROUGH["float64"])
