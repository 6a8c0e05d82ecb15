"""Keeping every value changes no bit of a step, on nets that are hard to fuse."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.ops.conv import Convolution
from graphc.runtime.reference import evaluate
from graphc.train.replay.values import StepValues
from tests.backends.native.nets import NETS, OPTIMIZERS, feeds_of
from tests.extras import where
from tests.train.nets import bits

SOME = ("seed_layers", "gated", "concat_of_slices", "weight_by_rows_and_columns", "towers")
"""With products that are rounded with a sum, views, and numbers that are computed in place."""


def check(name: str, optimizer: str, backend: str) -> None:
    net = NETS[name]("float32")
    plan = gc.compile(net, batch=40, optimizer=OPTIMIZERS[optimizer](), backend=backend, threads=1)
    ex, again = gc.Executor(plan, seed=1), gc.Executor(plan, seed=1)
    for step in range(3):
        feeds = feeds_of(net, 33, seed=step)
        values = StepValues(again, feeds)
        assert values.loss == ex.step(feeds)
        assert bits(again) == bits(ex)
        graph = plan.programs[values.name].graph
        with np.errstate(all="ignore"):
            wanted = evaluate(graph, values.arrays, values.before, 33)
        for node in graph:
            close = np.allclose(values[node.name], wanted[node.name], rtol=0.02, atol=1e-3)
            assert close, node.name
        for node in graph:
            if not values.exact(node.name) and not isinstance(node.op, Convolution):
                assert len(np.unique(values[node.name])) == 1, f"{node.name} is one number"


BACKENDS = pytest.mark.parametrize("backend", ["numpy", where("native")])


@pytest.mark.one_in(11)
@BACKENDS
@pytest.mark.parametrize(
    ("name", "optimizer"), list(zip(SOME, ("adam", "clipped", "accumulated") * 2, strict=False))
)
def test_some_nets(name: str, optimizer: str, backend: str) -> None:
    check(name, optimizer, backend)


@pytest.mark.one_in(3)
@pytest.mark.slow
@BACKENDS
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETS)
def test_any_net(name: str, optimizer: str, backend: str) -> None:
    check(name, optimizer, backend)
