"""Splitting, joining, repeating and turning, as NumPy does it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import GraphError
from graphc.ir.op import Array
from tests.error_text import error_text

BACKENDS = ("numpy", "native")
X = np.random.default_rng(0).normal(size=(5, 4, 6))

Made = Callable[[gc.Value], gc.Value]
CASES: dict[str, tuple[Made, Callable[[Array], Any]]] = {
    "split": (lambda x: gc.split(x, 3)[1], lambda x: np.split(x, 3, -1)[1]),
    "split lengths": (lambda x: gc.split(x, [1, 3], 1)[1], lambda x: x[:, 1:]),
    "stack": (lambda x: gc.stack([x, -x], 1), lambda x: np.stack([x, -x], 1)),
    "stack last": (lambda x: gc.stack([x, -x, x], -1), lambda x: np.stack([x, -x, x], -1)),
    "squeeze": (lambda x: gc.squeeze(x[:, :1], 1), lambda x: x[:, 0]),
    "squeeze all": (lambda x: gc.squeeze(x[:, :1, :1]), lambda x: x[:, 0, 0]),
    "unsqueeze": (lambda x: gc.unsqueeze(x, (0, -1)), lambda x: x[None, ..., None]),
    "expand": (lambda x: gc.expand(x[:, :1], (2, 1, 3, 1)), lambda x: _expanded(x)),
    "tile": (lambda x: gc.tile(x, (1, 2, 3)), lambda x: np.tile(x, (1, 2, 3))),
    "tile rows": (lambda x: gc.tile(x, (2, 1, 1)), lambda x: np.tile(x, (2, 1, 1))),
    "repeat": (lambda x: gc.repeat(x, 3, 1), lambda x: x.repeat(3, 1)),
    "repeat rows": (lambda x: gc.repeat(x, 2, 0), lambda x: x.repeat(2, 0)),
    "flip": (lambda x: gc.flip(x, 1), lambda x: x[:, ::-1]),
    "flip two": (lambda x: gc.flip(x, (1, -1)), lambda x: x[:, ::-1, ::-1]),
    "roll": (lambda x: gc.roll(x, 2), lambda x: np.roll(x, 2, -1)),
    "roll back": (lambda x: gc.roll(x, -9, 1), lambda x: np.roll(x, -9, 1)),
    "roll nowhere": (lambda x: gc.roll(x, 6), lambda x: x),
    "tril": (lambda x: gc.tril(x, 1), lambda x: np.tril(x, 1)),
    "triu": (lambda x: gc.triu(x, -1), lambda x: np.triu(x, -1)),
    "edge": (lambda x: gc.pad(x, (0, 1, (2, 0)), mode="edge"), lambda x: _padded(x, "edge")),
    "reflect": (
        lambda x: gc.pad(x, (0, 1, (2, 0)), mode="reflect"),
        lambda x: _padded(x, "reflect"),
    ),
    "wrap": (lambda x: gc.pad(x, (0, 1, (2, 0)), mode="wrap"), lambda x: _padded(x, "wrap")),
    "steps": (lambda x: x[:, ::-2, 5:0:-3], lambda x: x[:, ::-2, 5:0:-3]),
    "to the front": (lambda x: x[:, 2::-1], lambda x: x[:, 2::-1]),
}


def _expanded(x: Array) -> Array:
    return np.broadcast_to(x[:, :1], (2, 5, 3, 6))


def _padded(x: Array, mode: Any) -> Array:
    return np.pad(x, ((0, 0), (1, 1), (2, 0)), mode)


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_are_those_of_numpy(backend: str) -> None:
    net = gc.Net("net", dtype="float64")
    x = net.input("x", (gc.N, 4, 6))
    for name, (make, _) in CASES.items():
        if name != "expand":
            net.output(name, make(x))
    ex = gc.Executor(gc.compile(net, batch=8, losses=[], backend=backend))
    for name, found in ex.forward(x=X).items():
        np.testing.assert_array_equal(found, CASES[name][1](X), err_msg=name)


def test_expand_takes_the_larger_of_both_sizes() -> None:
    net = gc.Net("net", dtype="float64")
    net.output("out", CASES["expand"][0](net.constant(X)))
    found = gc.Executor(gc.compile(net, batch=1, backend="numpy")).forward()["out"]
    np.testing.assert_array_equal(found, _expanded(X))


@pytest.mark.parametrize("name", [name for name in CASES if name != "expand"])
def test_each_number_has_the_gradient_of_where_it_goes(name: str) -> None:
    """The gradient of sum(f(x) * w), which is linear in x."""
    net = gc.Net("net", dtype="float64")
    x = net.parameter("x", X.shape, init=X)
    out = CASES[name][0](x)
    places = CASES[name][1](np.arange(1.0, X.size + 1).reshape(X.shape))
    weights = np.random.default_rng(1).normal(size=places.shape)
    net.loss("loss", gc.sum(out * net.constant(weights)))
    ex = gc.Executor(gc.compile(net, batch=1, optimizer=gc.SGD(0.1), backend="numpy"))
    ex.forward(train=True)
    signs = np.sign(places)  # some are negated, and some are not numbers of x
    came_from = np.abs(places).ravel().astype(int)
    sums = np.bincount(came_from, (weights * signs).ravel(), X.size + 1)[1:]
    np.testing.assert_allclose(ex.backward()["x"].ravel(), sums, rtol=1e-12, atol=1e-14)


def test_a_value_flipped_twice_is_itself_and_once_is_not() -> None:
    net = gc.Net("net", dtype="float64")
    x = net.input("x", (gc.N, 3))
    net.output("once", gc.flip(x, 1))
    net.output("twice", gc.flip(gc.flip(x, 1), 1))
    found = gc.Executor(gc.compile(net, batch=2)).forward(x=[[1, 2, 3]])
    np.testing.assert_array_equal(found["once"], [[3, 2, 1]])
    np.testing.assert_array_equal(found["twice"], [[1, 2, 3]])


def test_parts_are_named() -> None:
    net = gc.Net("net")
    gates = gc.split(net.input("x", (gc.N, 6)), 2, name="gates")
    assert [part.name for part in gates] == ["gates.0", "gates.1"]


def test_mistakes_raise_errors() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 4))
    wrong: dict[str, Callable[[], object]] = {
        "a dimension of 4 cannot be cut into 3 equal parts": lambda: gc.split(x, 3),
        "parts of .1, 2. do not fill a dimension of 4": lambda: gc.split(x, [1, 2]),
        "axis 2 does not exist": lambda: gc.split(x, 2, 2),
        "the batch dimension cannot be cut": lambda: gc.split(x, 2, 0),
        "the list of values is empty": lambda: gc.stack([]),
        "are not of one shape and dtype": lambda: gc.stack([x, x[:, 1:]]),
        "axis 1 of .N, 4. does not have size 1": lambda: gc.squeeze(x, 1),
        "axis 3 does not exist": lambda: gc.unsqueeze(x, 3),
        "do not broadcast: N against 2": lambda: gc.expand(x, (2, 3)),
        "1 repeat counts for float32.N, 4.": lambda: gc.tile(x, [2]),
        ".0, 1. are not whole numbers from 1 up": lambda: gc.tile(x, [0, 1]),
        r"\[1.5\] are not whole numbers": lambda: gc.repeat(x, 1.5, 1),  # type: ignore[arg-type]
        "the batch dimension": lambda: gc.flip(x),
        "batch dimension cannot be cut": lambda: gc.roll(x, 1, 0),
        "x is float32.N, 4., not of matrices": lambda: gc.tril(x),
        "mode 'mirror' is not one of": lambda: gc.pad(x, (0, 1), mode="mirror"),  # type: ignore[arg-type]
        "the batch dimension cannot be padded": lambda: gc.pad(x, (1, 1), mode="edge"),
        "1 pairs of pads": lambda: gc.pad(x, [1], mode="wrap"),
        "x is float32.N., not of matrices": lambda: gc.triu(x[:, 0]),
    }
    for message, call in wrong.items():
        with pytest.raises(GraphError) as caught:
            call()
        assert re.search(message, error_text(caught.value))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_of_a_slice_to_the_front_is_zero_behind_it(backend: str) -> None:
    """Columns that the slice does not read get the gradient of the other user alone."""
    net = gc.Net("front", dtype="float64")
    x = net.input("x", (gc.N, 3))
    h = gc.relu(gc.affine(x, 3, name="h"))
    net.loss("loss", gc.mean(h[:, 1::-1] ** 2) + gc.mean(gc.tanh(h)))
    ex = gc.Executor(gc.compile(net, batch=4, backend=backend))
    fed = np.random.default_rng(0).random((4, 3))
    bias = np.full(3, 2.0)
    ex.parameters["h.bias"] = bias
    values = fed @ ex.parameters["h.weight"] + bias
    assert (values > 0).all()
    ex.forward(x=fed, train=True)
    slope = (1 - np.tanh(values) ** 2) / 12 + 2 * values / 8 * [1, 1, 0]
    np.testing.assert_allclose(ex.backward()["h.bias"], slope.sum(axis=0), rtol=1e-9)
