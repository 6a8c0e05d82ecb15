"""States that a net reads as values: every read of a run sees them as they were before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.extras import where

BACKENDS = ["numpy", where("native")]
ROWS = 4


def executor(backend: str, *, read: bool, shown: bool) -> gc.Executor:
    """A batchnorm whose running mean is an output (`shown`) or a factor of the loss (`read`)."""
    net = gc.Net("net", dtype="float64")
    x = net.input("x", (gc.N, 3))
    h = gc.batchnorm(gc.affine(x, 3, name="a"), name="b")
    mean = net["b.running_mean"]
    if shown:
        net.output("mean", mean)
        net.output("row", gc.reshape(mean, (1, 3)))
        net.output("weight", net["a.weight"])
    net.loss("loss", gc.mean((h * (mean + 1.0) if read else h) ** 3))
    outputs = ["mean", "row", "weight"] if shown else None
    plan = gc.compile(net, batch=ROWS, optimizer=gc.SGD(lr=0.1), outputs=outputs, backend=backend)
    ex = gc.Executor(plan, seed=1)
    ex.state = {"b.running_mean": np.array([0.5, -1.0, 2.0])}
    return ex


def feeds() -> dict[str, Any]:
    return {"x": np.random.default_rng(0).standard_normal((ROWS, 3))}


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_output_that_is_a_state_is_the_one_from_before(backend: str) -> None:
    ex = executor(backend, read=False, shown=True)
    before = ex.snapshot()
    shown = ex.forward(feeds(), train=True)
    assert np.array_equal(shown["mean"], before["b.running_mean"])
    assert np.array_equal(shown["row"], before["b.running_mean"][None])
    before = ex.snapshot()
    ex.step(feeds())
    assert np.array_equal(ex.values["mean"], before["b.running_mean"])
    assert np.array_equal(ex.values["row"], before["b.running_mean"][None])
    assert np.array_equal(ex.values["weight"], before["a.weight"])
    assert not np.array_equal(ex.state["a.weight"], before["a.weight"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shown", [False, True])
@pytest.mark.parametrize("read", [False, True])
def test_states_advance_in_the_forward_pass_alone(backend: str, read: bool, shown: bool) -> None:
    ex = executor(backend, read=read, shown=shown)
    ex.forward(feeds(), train=True)
    x = feeds()["x"] @ ex.state["a.weight"] + ex.state["a.bias"]
    wanted = 0.9 * np.array([0.5, -1.0, 2.0]) + 0.1 * x.mean(axis=0)
    np.testing.assert_allclose(ex.state["b.running_mean"], wanted, rtol=1e-12)
    for _ in range(2):
        ex.backward()
        np.testing.assert_allclose(ex.state["b.running_mean"], wanted, rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shown", [False, True])
def test_the_backward_pass_reads_states_from_before_the_forward_pass(
    backend: str, shown: bool
) -> None:
    """d loss / d beta by hand."""
    ex = executor(backend, read=True, shown=shown)
    ex.forward(feeds(), train=True)
    weight, bias = ex.state["a.weight"], ex.state["a.bias"]
    h = feeds()["x"] @ weight + bias
    h = (h - h.mean(axis=0)) / np.sqrt(h.var(axis=0) + 1e-5)
    factor = np.array([1.5, 0.0, 3.0])
    wanted = (3 * (h * factor) ** 2 * factor).sum(axis=0) / h.size
    for _ in range(2):
        np.testing.assert_allclose(ex.backward()["b.beta"], wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_by_cotangents_read_them_too(backend: str) -> None:
    ex = executor(backend, read=True, shown=False)
    ex.forward(feeds(), train=True)
    wanted = ex.backward()
    after = ex.snapshot()
    for _ in range(2):
        found = ex.backward(loss=1.0)
        for name, gradient in wanted.items():
            np.testing.assert_allclose(found[name], gradient, rtol=1e-12)
    assert all(np.array_equal(after[name], array) for name, array in ex.snapshot().items())


def test_an_output_without_parameters_has_no_gradients() -> None:
    ex = executor("numpy", read=False, shown=True)
    ex.forward(feeds(), train=True)
    assert ex.backward(mean=np.ones(3)) == {}
    both = ex.backward(mean=np.ones(3), loss=1.0)
    wanted = ex.backward()
    assert both.keys() == wanted.keys()
    for name, gradient in wanted.items():
        np.testing.assert_allclose(both[name], gradient, rtol=1e-12)


def test_a_weight_that_is_read_transposed_is_not_copied() -> None:
    """Its update waits for all that may read it."""
    net = gc.Net("net")
    h = gc.conv2d(net.input("x", (gc.N, 3, 6, 6)), 4, 3, name="conv")
    net.loss("loss", gc.mean(h * h))
    plan = gc.compile(net, batch=2, optimizer=gc.SGD(lr=0.1))
    assert "conv.weight.before" not in plan.programs["step"].buffers
    assert plan.verify().ok
