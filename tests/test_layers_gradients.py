"""Gradients of the course's functions against its own numerical gradient, to its targets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import tests.student_layers as student
from graphc import layers


def numeric(f: Callable[[], Any], x: Any, dout: Any, h: float = 1e-5) -> Any:
    """The course's numerical gradient of sum(out * dout) by x, out the first that f gives."""

    def out() -> Any:
        return np.array(f()[0])

    found = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + h
        high = out()
        x[index] = kept - h
        found[index] = ((high - out()) * dout).sum() / (2 * h)
        x[index] = kept
    return found


def rel_error(x: Any, y: Any) -> float:
    """The course's measure, with its entries below 1e-7 compared absolutely."""
    gap, size = np.abs(x - y), np.maximum(1e-8, np.abs(x) + np.abs(y))
    return float(np.where(np.maximum(np.abs(x), np.abs(y)) < 1e-7, gap, gap / size).max())


# The course's sizes and targets; the worst of 100 seeds.


def test_affine_gradients() -> None:
    worst = 0.0
    for seed in range(100):
        rng = np.random.RandomState(seed)
        x, w, b, dout = (rng.randn(*s) for s in ((10, 2, 3), (6, 5), (5,), (10, 5)))
        _, cache = layers.affine_forward(x, w, b)
        for array, grad in zip((x, w, b), layers.affine_backward(dout, cache), strict=True):
            expected = numeric(partial(student.affine_forward, x, w, b), array, dout)
            worst = max(worst, rel_error(grad, expected))
    assert worst < 5e-8


def test_affine_with_whole_numbers_is_exact() -> None:
    rng = np.random.default_rng(0)
    x, w, b = (rng.integers(-9, 10, s) for s in ((4, 2, 3), (6, 5), (5,)))
    dout = rng.integers(-9, 10, (4, 5))
    out, cache = layers.affine_forward(x, w, b)
    expected, same = student.affine_forward(x, w, b)
    np.testing.assert_array_equal(out, expected)
    for ours, theirs in zip(
        layers.affine_backward(dout, cache), student.affine_backward(dout, same), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("ours", "theirs", "target"),
    [
        (layers.svm_loss, student.svm_loss, 5e-9),
        (layers.softmax_loss, student.softmax_loss, 2e-8),
    ],
)
def test_loss_gradients(ours: Any, theirs: Any, target: float) -> None:
    worst = 0.0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x, y = 0.001 * rng.standard_normal((10, 10)), rng.integers(0, 10, 10)
        loss, dx = ours(x, y)
        assert loss == pytest.approx(theirs(x, y)[0], rel=1e-12)
        worst = max(worst, rel_error(dx, numeric(partial(theirs, x, y), x, 1.0)))
    assert worst < target


def test_relu_and_sandwich_gradients() -> None:
    rng = np.random.default_rng(231)
    x, dout = rng.standard_normal((10, 10)), rng.standard_normal((10, 10))
    dx = layers.relu_backward(dout, layers.relu_forward(x)[1])
    assert rel_error(dx, numeric(partial(student.relu_forward, x), x, dout)) < 1e-9
    x, w, b = (rng.standard_normal(s) for s in ((2, 3, 4), (12, 10), (10,)))
    dout = rng.standard_normal((2, 10))
    _, cache = layers.affine_relu_forward(x, w, b)
    for array, grad in zip((x, w, b), layers.affine_relu_backward(dout, cache), strict=True):
        expected = numeric(partial(student.affine_relu_forward, x, w, b), array, dout)
        assert rel_error(grad, expected) < 1e-7


@pytest.mark.parametrize("mode", ["train", "test"])
def test_batchnorm_gradients(mode: str) -> None:
    rng = np.random.default_rng(231)
    x, dout = 5 * rng.standard_normal((4, 5)) + 12, rng.standard_normal((4, 5))
    gamma, beta = rng.standard_normal(5), rng.standard_normal(5)

    def param() -> dict[str, Any]:
        return {"mode": mode, "running_mean": np.full(5, 11.0), "running_var": np.full(5, 20.0)}

    _, cache = layers.batchnorm_forward(x, gamma, beta, param())
    grads = layers.batchnorm_backward(dout, cache)
    for array, grad in zip((x, gamma, beta), grads, strict=True):
        expected = numeric(lambda: student.batchnorm_forward(x, gamma, beta, param()), array, dout)
        assert rel_error(grad, expected) < 1e-8
    for ours, other in zip(grads, layers.batchnorm_backward_alt(dout, cache), strict=True):
        np.testing.assert_array_equal(ours, other)


def test_dropout_gradient() -> None:
    rng = np.random.default_rng(231)
    x, dout = rng.standard_normal((10, 10)) + 10, rng.standard_normal((10, 10))
    param: dict[str, Any] = {"mode": "train", "p": 0.2, "seed": 123}
    dx = layers.dropout_backward(dout, layers.dropout_forward(x, param)[1])
    assert rel_error(dx, numeric(partial(layers.dropout_forward, x, param), x, dout)) < 1e-8
    test = layers.dropout_forward(x, {"mode": "test", "p": 0.2})[1]
    np.testing.assert_array_equal(layers.dropout_backward(dout, test), dout)
