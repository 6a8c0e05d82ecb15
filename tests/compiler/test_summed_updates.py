"""Updates of sums of gradients are made before what they read is changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc

ROWS, FEATURES, UNITS = 4, 16, 3
RATE, BETA1, BETA2, EPS = 0.05, 0.9, 0.999, 1e-3


def feeds(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((ROWS, FEATURES)), "y": rng.integers(0, UNITS, ROWS)}


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_adam_counts_from_before_its_update_when_gradients_are_summed(backend: str) -> None:
    """The sums are cleared after the counter has advanced; the step is made before."""
    net = gc.Net("net", dtype="float64")
    x, y = net.input("x", (gc.N, FEATURES)), net.input("y", (gc.N,), dtype="int64")
    net.loss("loss", gc.softmax_loss(gc.affine(x, UNITS, name="a"), y))
    adam = gc.Adam(lr=RATE, eps=EPS, accumulate=2)
    ex = gc.Executor(gc.compile(net, batch=ROWS, optimizer=adam, backend=backend))
    before = ex.snapshot()
    gradients = []
    for seed in range(2):
        ex.forward(feeds(seed), train=True)
        gradients.append(ex.backward())
    for seed in range(2):
        ex.step(feeds(seed))
    for name in ("a.weight", "a.bias"):
        gradient = (gradients[0][name] + gradients[1][name]) / 2
        wanted = before[name] - RATE * gradient / (np.abs(gradient) + EPS)  # both moments unbiased
        np.testing.assert_allclose(ex.state[name], wanted, rtol=1e-9)
