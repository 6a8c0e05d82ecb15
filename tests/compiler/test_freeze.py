"""Frozen executors: weights built in, batchnorm folded, and taken anew by refresh."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.ops.source import Parameter, State

SGD = gc.SGD(lr=0.1, momentum=0.9)


def trained(steps: int = 5) -> gc.Executor:
    net = gc.Net("frozen")
    x, y = net.input("x", (gc.N, 6)), net.input("y", (gc.N,), dtype="int64")
    h = gc.relu(gc.batchnorm(gc.affine(x, 8)))
    h = gc.dropout(gc.relu(gc.batchnorm(gc.affine(h, 8))), keep_prob=0.5)
    net.output("scores", gc.affine(h, 3, name="scores"))
    net.loss("loss", gc.softmax_loss(net["scores"], y))
    ex = gc.Executor(gc.compile(net, batch=16, optimizer=SGD))
    train(ex, steps)
    return ex


def train(ex: gc.Executor, steps: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        ex.step(x=rng.standard_normal((16, 6)), y=rng.integers(0, 3, 16))


ROWS = np.random.default_rng(9).standard_normal((37, 6)).astype(np.float32)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("batch", [1, 16, 64])
def test_a_frozen_executor_predicts_the_same(batch: int) -> None:
    ex = trained()
    frozen = gc.freeze(ex, batch=batch)
    np.testing.assert_allclose(frozen.predict(ROWS), ex.predict(ROWS), rtol=1e-5, atol=1e-5)


def test_nothing_is_left_to_train_or_to_normalize() -> None:
    graph = gc.freeze(trained(), batch=1).plan.programs["infer"].graph
    assert not any(isinstance(node.op, (Parameter, State)) for node in graph)
    kinds = {node.op.name for node in graph}
    assert kinds == {"input", "constant", "affine_relu", "affine"}


def test_a_frozen_executor_keeps_its_weights_until_it_is_refreshed() -> None:
    ex = trained()
    frozen = gc.freeze(ex, batch=16)
    before = frozen.predict(ROWS)
    train(ex, 5, seed=1)
    assert np.array_equal(frozen.predict(ROWS), before)
    programs = frozen.plan.programs["infer"]
    frozen.refresh(ex)
    np.testing.assert_allclose(frozen.predict(ROWS), ex.predict(ROWS), rtol=1e-5, atol=1e-5)
    assert np.array_equal(frozen.predict(ROWS), gc.freeze(ex, batch=16).predict(ROWS))
    assert frozen.plan.programs["infer"].instrs is programs.instrs


def test_a_frozen_plan_does_not_train() -> None:
    frozen = gc.freeze(trained(), batch=16)
    with pytest.raises(gc.StateError, match="this plan has nothing to train"):
        frozen.forward(x=ROWS[:2], train=True)
    with pytest.raises(gc.StateError):
        frozen.step(x=ROWS[:2])
    assert list(frozen.parameters) == []


def test_only_frozen_executors_are_refreshed_and_only_from_their_net() -> None:
    ex = trained()
    with pytest.raises(gc.GraphError, match="this plan is not frozen"):
        ex.refresh(trained())
    other = gc.Net()
    other.output("out", gc.affine(other.input("x", (gc.N, 6)), 3))
    frozen, before = gc.freeze(ex, batch=16), gc.freeze(ex, batch=16).predict(ROWS)
    with pytest.raises(gc.GraphError, match="refresh"):
        frozen.refresh(gc.Executor(gc.compile(other, batch=1)))
    assert np.array_equal(frozen.predict(ROWS), before)
