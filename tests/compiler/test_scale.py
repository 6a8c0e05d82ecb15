"""Large graphs: nothing recurses, and what is compiled runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest

import graphc as gc
from graphc.ir.verify import verify
from tests.tools.benchmarks.compile_scale import declare

SGD = gc.SGD(lr=1e-3, momentum=0.9)


@pytest.fixture
def shallow_stack() -> Iterator[None]:
    """Room for a few frames more than there are: what recurses over nodes fails."""
    frame, depth = sys._getframe(), 0
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + 150)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.parametrize(
    ("backend", "readers"),
    [("numpy", 160), pytest.param(None, 20, marks=pytest.mark.slow)],
)
def test_nothing_recurses_over_nodes(
    shallow_stack: None, backend: str | None, readers: int
) -> None:
    """A chain, a tower of residuals, a value that many read, a gradient in the net."""
    net = gc.Net("deep")
    x = net.input("x", (gc.N, 4))
    h = x
    for _ in range(40):
        h = h + gc.relu(gc.batchnorm(gc.affine(h, 4)))
    total = gc.concat([h * float(k) for k in range(readers)], axis=1)
    net.output("total", total)
    net.loss("loss", 1e-6 * gc.mean(total * total))
    net.loss("penalty", 1e-9 * gc.sum(gc.grad(gc.sum(gc.tanh(h)), x)))
    plan = gc.compile(net, batch=2, optimizer=SGD, backend=backend)
    ex = gc.Executor(plan)
    assert np.isfinite(ex.step(x=np.ones((2, 4))))
    assert ex.forward(x=np.ones((1, 4)))["total"].shape == (1, 4 * readers)


@pytest.mark.slow
def test_a_hundred_thousand_nodes_compile() -> None:
    net = declare(8_400)
    verify(net.graph())
    plan = gc.compile(net, batch=4, optimizer=SGD)
    step = plan.programs["step"]
    assert len(step.graph) > 100_000
    assert step.arena.nbytes <= 1.02 * step.arena.peak
    ex = gc.Executor(plan)
    feed = {"x": np.ones((3, 8)), "y": np.array([0, 1, 2])}
    losses = [ex.step(feed) for _ in range(2)]
    assert np.all(np.isfinite(losses))
    assert int(ex.state["updates"]) == 2
