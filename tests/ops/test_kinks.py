"""Slopes where a function has none: the conventions that the lesson for PyTorch's users tells."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc

Case = tuple[Callable[[gc.Value], gc.Value], list[float], list[float]]

FIRST: dict[str, Case] = {
    "relu": (gc.relu, [0.0], [0.0]),
    "abs": (gc.abs, [0.0], [0.0]),
    "l2_norm": (gc.l2_norm, [0.0, 0.0], [0.0, 0.0]),
    "max of equals": (gc.max, [1.0, 2.0, 2.0], [0.0, 0.5, 0.5]),
    "min of equals": (gc.min, [1.0, 1.0, 2.0], [0.5, 0.5, 0.0]),
    "maximum of equals": (lambda x: gc.maximum(x[0], x[1]), [3.0, 3.0], [1.0, 0.0]),
    "minimum of equals": (lambda x: gc.minimum(x[0], x[1]), [3.0, 3.0], [1.0, 0.0]),
    "sort of equals": (lambda x: gc.sort(x)[0], [1.0, 1.0], [1.0, 0.0]),
    "clip": (lambda x: gc.clip(x, -1.0, 1.0), [-1.0, 1.0], [1.0, 1.0]),
    "hard_tanh": (gc.hard_tanh, [-1.0, 1.0], [1.0, 1.0]),
    "relu6": (gc.relu6, [0.0, 6.0], [1.0, 1.0]),
    "hard_sigmoid": (gc.hard_sigmoid, [-3.0, 3.0], [1 / 6, 1 / 6]),
    "hard_swish": (gc.hard_swish, [-3.0, 3.0], [-0.5, 1.5]),
    "shrink": (gc.shrink, [-0.5, 0.5], [0.0, 0.0]),
    "leaky_relu": (gc.leaky_relu, [0.0], [0.01]),
    "hinge_loss": (lambda x: gc.hinge_loss(x, x * 0.0 + 1.0), [1.0], [0.0]),
    "1st power of 0": (lambda x: x[0] ** x[1], [0.0, 1.0], [1.0, 0.0]),
    "power 0 of 0": (lambda x: x[0] ** x[1], [0.0, 0.0], [0.0, 0.0]),
    "product of zeros": (gc.prod, [0.0, 2.0, 3.0], [6.0, 0.0, 0.0]),
    "products up to a zero": (lambda x: gc.cumprod(x, 0), [2.0, 0.0, 3.0], [1.0, 8.0, 0.0]),
    "cosine_loss": (
        lambda x: gc.cosine_loss(gc.reshape(x, (1, 2)), *_across(x)),
        [1.0, 0.0],
        [0.0, 0.0],
    ),
}
SECOND: dict[str, Case] = {
    "l2_norm": (gc.l2_norm, [0.0, 0.0], [0.0, 0.0]),
    "elu": (lambda x: gc.elu(x, 2.0), [0.0], [2.0]),
    "celu": (lambda x: gc.celu(x, 2.0), [0.0], [0.5]),
    "huber_loss": (lambda x: gc.huber_loss(x, x * 0.0, 1.5), [1.5], [1.0]),
}


def _across(x: gc.Value) -> tuple[gc.Value, gc.Value]:
    """A row at a right angle to (1, 0), and that they are not alike."""
    zero = gc.stop_gradient(gc.reshape(x, (1, 2))) * 0.0
    return zero + gc.stop_gradient(gc.reshape(gc.flip(x, 0), (1, 2))), zero[:, 0] - 1.0


def slopes(case: Case, order: int, backend: str) -> np.ndarray:
    function, start, _ = case
    net = gc.Net("kink", dtype="float64")
    x = net.parameter("x", (len(start),), init=np.array(start))
    value = gc.sum(function(x))
    for _ in range(order - 1):
        value = gc.sum(gc.grad(value, x))
    net.loss("loss", value)
    ex = gc.Executor(gc.compile(net, batch=1, wrt=["x"], backend=backend))
    ex.forward(train=True)
    return ex.backward()["x"]


@pytest.mark.parametrize("name", FIRST)
def test_first_order(name: str) -> None:
    np.testing.assert_allclose(slopes(FIRST[name], 1, "numpy"), FIRST[name][2], rtol=1e-15)


@pytest.mark.parametrize("name", SECOND)
def test_second_order(name: str) -> None:
    np.testing.assert_allclose(slopes(SECOND[name], 2, "numpy"), SECOND[name][2], rtol=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIRST)
def test_first_order_on_native(name: str) -> None:
    np.testing.assert_allclose(slopes(FIRST[name], 1, "native"), FIRST[name][2], rtol=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize("name", SECOND)
def test_second_order_on_native(name: str) -> None:
    np.testing.assert_allclose(slopes(SECOND[name], 2, "native"), SECOND[name][2], rtol=1e-15)
