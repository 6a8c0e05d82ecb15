"""Derivatives of derivatives where an op's operands depend on each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc

Array = np.ndarray[Any, Any]


def _batchnorm_of_its_square(x: gc.Value, net: gc.Net) -> gc.Value:
    """The second backward reads x and a cotangent that is made of x."""
    h = gc.batchnorm(x, name="bn")
    return gc.sum(h * h * x)


def _two_batchnorms(x: gc.Value, net: gc.Net) -> gc.Value:
    return gc.sum(gc.tanh(gc.batchnorm(gc.tanh(gc.batchnorm(x) * x)) * 0.5))


def _cotangent_that_is_the_operand(x: gc.Value, net: gc.Net) -> gc.Value:
    return gc.sum(gc.batchnorm(x) * x)


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "build", [_batchnorm_of_its_square, _two_batchnorms, _cotangent_that_is_the_operand]
)
def test_a_penalty_on_a_gradient(build: Callable[[gc.Value, gc.Net], gc.Value]) -> None:
    """d/dx of sum(sin(k) * d loss/dx) against central differences of the loss's gradient."""
    net = gc.Net(dtype="float64")
    x, k = net.input("x", (gc.N, 3)), net.input("k", (gc.N, 3))
    inner = gc.grad(build(x, net), x)
    net.output("inner", inner)
    net.loss("penalty", gc.sum(k * inner))
    ex = gc.Executor(gc.compile(net, batch=5, wrt="x"))
    rng = np.random.default_rng(0)
    at, weights = rng.standard_normal((5, 3)), rng.standard_normal((5, 3))

    def penalty(point: Array) -> float:
        return float(ex.forward(x=point, k=weights, train=True)["penalty"])

    penalty(at)
    gradient = ex.backward()["x"]
    h, numeric = 1e-5, np.empty_like(at)
    for index in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[index] = h
        numeric[index] = (penalty(at + step) - penalty(at - step)) / (2 * h)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("several", [False, True])
def test_a_derivative_by_what_nothing_connects_is_refused(several: bool) -> None:
    net = gc.Net("apart")
    p, q = net.parameter("p", (3,)), net.parameter("q", (2,))
    value = gc.sum(p * p)
    before = len(net.builder.nodes)
    with pytest.raises(gc.GraphError, match=r"^grad: 'sum_1' does not depend on 'q'\n") as caught:
        gc.grad(value, [p, q] if several else q)
    assert "its derivative is 0" in caught.value.hint
    assert len(net.builder.nodes) == before
    net.output("value", value)
    with pytest.raises(gc.GraphError):  # as it is where a plan is asked for it
        net.loss("loss", value)
        gc.compile(net, batch=1, wrt="q")


def test_a_derivative_that_is_cut_off_is_zero() -> None:
    net = gc.Net("cut")
    x = net.input("x", (gc.N, 3))
    net.output("slope", gc.grad(gc.sum(gc.stop_gradient(x) * 2.0), x))
    second = gc.grad(gc.sum(gc.grad(gc.sum(x * 2.0), x)), x)  # of a constant
    net.output("second", second)
    found = gc.Executor(gc.compile(net, batch=2, backend="numpy")).forward(x=np.ones((2, 3)))
    assert not found["slope"].any() and not found["second"].any()


SAME: dict[str, Callable[[gc.Value], gc.Value]] = {
    "broadcast_to": lambda x: gc.broadcast_to(x, x.shape),
    "expand": lambda x: gc.expand(x, (1, 1)),
    "cast": lambda x: gc.cast(x, x.dtype),
    "slice": lambda x: x[:],
    "dots": lambda x: x[...],
    "reshape": lambda x: gc.reshape(x, x.shape),
    "dropout": lambda x: gc.dropout(x, keep_prob=1),
}


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("function", SAME)
def test_a_derivative_by_what_equals_its_operand_is_its_own(function: str, train: bool) -> None:
    net = gc.Net("equal")
    x = gc.neg(net.input("x", (gc.N, 3)))
    y = SAME[function](x)
    value = gc.sum(2.0 * x) + gc.sum(3.0 * y)
    for name, slope in zip(("of_x", "of_y"), gc.grad(value, [x, y]), strict=True):
        net.output(name, slope)
    net.loss("loss", gc.sum(net.parameter("p", (1,))))
    ex = gc.Executor(gc.compile(net, batch=2, backend="numpy"))
    found = ex.forward(x=np.ones((2, 3)), train=train)
    assert (found["of_x"] == 5).all() and (found["of_y"] == 3).all()


@pytest.mark.parametrize("function", SAME)
def test_a_gradient_by_what_equals_its_operand_is_its_own(function: str) -> None:
    net = gc.Net("equal")
    x = gc.neg(net.input("x", (gc.N, 3)))
    y = SAME[function](x)
    net.loss("loss", gc.sum(2.0 * x) + gc.sum(3.0 * y))
    ex = gc.Executor(gc.compile(net, batch=2, backend="numpy", wrt=[x.name, y.name]))
    ex.forward(x=np.ones((2, 3)), train=True)
    found = ex.backward()
    assert (found[x.name] == 5).all() and (found[y.name] == 3).all()
