"""Each row of a batch counts once, whichever rank and shard has it: the first, the last, or none.

The rows are those of the identity matrix, so that the step of a weight says how its row counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.ir.op import Array
from graphc.runtime.distributed.communicator import Communicator
from graphc.runtime.distributed.loopback import Loopback, run_ranks
from tests.runtime.distributed.nets import executor

MOST, SHARDS = 9, 4
LOSSES = ("sum", "mean", "weighted", "masked", "synchronised")


def net_of(loss: str) -> gc.Net:
    net = gc.Net(loss, dtype="float64")
    x, w = net.input("x", (gc.N, MOST)), net.parameter("w", (MOST,), init=0.0)
    h = gc.dropout(x, keep_prob=0.5) if loss == "masked" else x
    if loss == "synchronised":
        h = gc.batchnorm(x, name="bn")
    rows = gc.sum(h * w, axis=1)
    if loss == "weighted":
        weight = net.input("weight", (gc.N,))
        net.loss("loss", gc.mae_loss(rows, gc.stop_gradient(rows) - 1, weight=weight))
    else:
        net.loss("loss", gc.mean(rows) if loss == "mean" else gc.sum(rows))
    return net


NETS = {loss: net_of(loss) for loss in LOSSES}
WEIGHT = np.array([2.0, 0.0, 1.0, 0.5, 0.0, 0.0, 3.0, 1.0, 4.0])


def feeds_of(loss: str, n: int) -> dict[str, Array]:
    weight = {"weight": WEIGHT[:n]} if loss == "weighted" else {}
    return {"x": np.eye(n, MOST) * (2 if loss == "synchronised" else 1), **weight}


def executor_of(loss: str, ranks: Communicator | None = None, **options: Any) -> gc.Executor:
    sync = {"sync_batchnorm": True} if options and loss == "synchronised" else {}
    made = {"batch": MOST, "optimizer": gc.SGD(lr=1.0), "backend": "numpy", **sync, **options}
    return executor(NETS[loss], ranks, **made)


def expected(loss: str, n: int) -> Array:
    """How much each row is to count."""
    if loss == "weighted":
        return WEIGHT * (np.arange(MOST) < n) / WEIGHT[:n].sum()
    counts = np.where(np.arange(MOST) < n, 1.0, 0.0)
    return counts / n if loss == "mean" else counts


def moved(ex: gc.Executor, loss: str, n: int, fits: bool) -> dict[str, Array]:
    """The state after one step, and how much each row has counted: the negative of `w`."""
    if fits:
        gc.fit(ex, feeds_of(loss, n), epochs=1, batch=n, shuffle=False, progress=False)
    else:
        ex.step(feeds_of(loss, n))
    return {**ex.snapshot(), "counted": -ex.parameters["w"]}


@pytest.mark.parametrize("fits", [False, True], ids=["step", "fit"])
@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2, SHARDS])
@pytest.mark.parametrize("loss", LOSSES)
def test_each_row_counts_once(loss: str, size: int, fits: bool) -> None:
    for n in (MOST, SHARDS, SHARDS - 1, 1):
        whole = moved(executor_of(loss), loss, n, False)
        if loss in ("sum", "mean", "weighted"):
            np.testing.assert_allclose(whole["counted"], expected(loss, n), atol=1e-15)

        def main(ranks: Loopback, n: int = n) -> dict[str, Array]:
            return moved(executor_of(loss, ranks, shards=SHARDS), loss, n, fits)

        for found in run_ranks(size, main):
            for name, array in whole.items():
                np.testing.assert_allclose(found[name], array, 1e-12, 1e-14, err_msg=f"{name} {n}")
