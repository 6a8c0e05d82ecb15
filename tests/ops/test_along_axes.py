"""Reductions, running sums and order along axes, on both backends, as NumPy has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import GraphError
from graphc.ir.op import Array

BACKENDS = ("numpy", "native")
X = np.random.default_rng(0).normal(size=(5, 4, 6))
TIES = np.round(X)

Made = Callable[[gc.Value], gc.Value]
CASES: dict[str, tuple[Made, Callable[[Array], Any]]] = {
    "min": (gc.min, np.min),
    "min of rows": (lambda x: gc.min(x, (1, 2)), lambda x: x.min((1, 2))),
    "min of columns": (lambda x: gc.min(x, 0, True), lambda x: x.min(0, keepdims=True)),
    "no axes": (lambda x: gc.max(x, ()), lambda x: x),
    "prod": (lambda x: gc.prod(x, (1, 2)), lambda x: x.prod((1, 2))),
    "prod of one axis": (lambda x: gc.prod(x, 1, True), lambda x: x.prod(1, keepdims=True)),
    "logsumexp": (
        lambda x: gc.logsumexp(100 * x, 2),
        lambda x: np.logaddexp.reduce(100 * x, axis=2),
    ),
    "logsumexp of all": (gc.logsumexp, lambda x: np.logaddexp.reduce(x, axis=None)),
    "sum_squares": (lambda x: gc.sum_squares(x, (0, 2)), lambda x: (x**2).sum((0, 2))),
    "l1_norm": (lambda x: gc.l1_norm(x, 1), lambda x: np.abs(x).sum(1)),
    "l2_norm": (lambda x: gc.l2_norm(x, 1, True), lambda x: np.sqrt((x**2).sum(1, keepdims=True))),
    "cumsum": (gc.cumsum, lambda x: x.cumsum(-1)),
    "cumsum of rows": (lambda x: gc.cumsum(x, 0), lambda x: x.cumsum(0)),
    "cumsum before": (
        lambda x: gc.cumsum(x, 1, exclusive=True),
        lambda x: x.cumsum(1) - x,
    ),
    "cumsum from the end": (
        lambda x: gc.cumsum(x, 1, reverse=True),
        lambda x: x[:, ::-1].cumsum(1)[:, ::-1],
    ),
    "cumprod": (gc.cumprod, lambda x: x.cumprod(-1)),
    "cumprod before, from the end": (
        lambda x: gc.cumprod(x, 1, exclusive=True, reverse=True),
        lambda x: np.concatenate([x[:, :0:-1].cumprod(1)[:, ::-1], np.ones_like(x[:, :1])], 1),
    ),
    "sort": (gc.sort, np.sort),
    "sort down": (lambda x: gc.sort(x, 1, descending=True), lambda x: -np.sort(-x, 1)),
    "argmin": (lambda x: gc.argmin(x, 1), lambda x: x.argmin(1)),
    "argmax kept": (lambda x: gc.argmax(x, 1, True), lambda x: x.argmax(1, keepdims=True)),
}
OF_TIES: dict[str, tuple[Made, Callable[[Array], Any]]] = {
    "argsort": (gc.argsort, lambda x: x.argsort(-1, kind="stable")),
    "argsort down": (
        lambda x: gc.argsort(x, 1, descending=True),
        lambda x: (-x).argsort(1, kind="stable"),
    ),
    "last largest": (lambda x: gc.argmax(x, last=True), lambda x: 5 - x[..., ::-1].argmax(-1)),
    "last smallest": (
        lambda x: gc.argmin(x, 1, True, last=True),
        lambda x: 3 - x[:, ::-1].argmin(1, keepdims=True),
    ),
}


def outputs(cases: dict[str, tuple[Made, Any]], x: Array, backend: str) -> dict[str, Array]:
    net = gc.Net("net", dtype="float64")
    value = net.input("x", (gc.N, 4, 6), dtype=str(x.dtype))
    for name, (make, _) in cases.items():
        net.output(name, make(value))
    plan = gc.compile(net, batch=8, losses=[], backend=backend)
    return gc.Executor(plan).forward(x=x)


@pytest.mark.parametrize("backend", BACKENDS)
def test_floats(backend: str) -> None:
    for name, found in outputs(CASES, X, backend).items():
        wanted = CASES[name][1](X)
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_equals_the_first_comes_first(backend: str) -> None:
    for name, found in outputs(OF_TIES, TIES, backend).items():
        np.testing.assert_array_equal(found, OF_TIES[name][1](TIES), err_msg=name)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_whole_numbers(dtype: str) -> None:
    x = (100 * X).astype(dtype)
    x[0, 0] = np.iinfo(dtype).max
    cases: dict[str, tuple[Made, Any]] = {
        "sum": (lambda v: gc.sum(v, 1), lambda a: a.sum(1, dtype=a.dtype)),
        "sum of all": (gc.sum, lambda a: a.sum(dtype=a.dtype)),
        "max": (lambda v: gc.max(v, (0, 2)), lambda a: a.max((0, 2))),
        "min": (lambda v: gc.min(v, 2), lambda a: a.min(2)),
        "cumsum": (lambda v: gc.cumsum(v, 1), lambda a: a.cumsum(1, dtype=a.dtype)),
        "prod": (lambda v: gc.prod(v, 2), lambda a: a.prod(2, dtype=a.dtype)),
        "argmin": (gc.argmin, lambda a: a.argmin(-1)),
    }
    for backend in BACKENDS:
        for name, found in outputs(cases, x, backend).items():
            assert found.dtype == x.dtype or name == "argmin"
            np.testing.assert_array_equal(found, cases[name][1](x), err_msg=name)


def test_bools_are_reduced_to_any_and_all() -> None:
    net = gc.Net("net", dtype="float64")
    x = net.input("x", (gc.N, 4, 6))
    net.output("any", gc.max(x > 1.5, 2))
    net.output("all", gc.min(x > -1.5, 2))
    found = gc.Executor(gc.compile(net, batch=8, losses=[])).forward(x=X)
    np.testing.assert_array_equal(found["any"], (X > 1.5).any(2))
    np.testing.assert_array_equal(found["all"], (X > -1.5).all(2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_k_largest_have_the_gradient(backend: str) -> None:
    net = gc.Net("net", dtype="float64")
    x = net.parameter("x", (2, 4), init=np.array([[3.0, 1, 4, 1], [5, 9, 2, 6]]))
    values, places = gc.topk(x, 2, name="best")
    net.output("values", values)
    net.output("places", places)
    net.loss("loss", gc.sum(values * net.constant(np.array([1.0, 10.0]))))
    assert places.name == "best.indices"
    ex = gc.Executor(gc.compile(net, batch=1, optimizer=gc.SGD(0.1), backend=backend))
    found = ex.forward(train=True)
    np.testing.assert_array_equal(found["values"], [[4, 3], [9, 6]])
    np.testing.assert_array_equal(found["places"], [[2, 0], [1, 3]])
    np.testing.assert_array_equal(ex.backward()["x"], [[10, 0, 1, 0], [0, 1, 0, 10]])


def test_nan_is_last_in_either_order() -> None:
    net = gc.Net("net", dtype="float64")
    x = net.constant(np.array([1.0, np.nan, -np.inf, np.inf, np.nan]))
    net.output("up", gc.argsort(x))
    net.output("down", gc.argsort(x, descending=True))
    found = gc.Executor(gc.compile(net, batch=1, backend="numpy")).forward()
    np.testing.assert_array_equal(found["up"], [2, 0, 3, 1, 4])
    np.testing.assert_array_equal(found["down"], [3, 0, 2, 1, 4])


@pytest.mark.parametrize("function", [gc.prod, gc.cumprod])
def test_gradients_of_products_are_right_at_zero(function: Any) -> None:
    """By differences: each is linear in each of its numbers."""
    start = np.array([2.0, 0.0, 3.0, 0.0, -1.5])
    weights = np.array([1.0, 2.0, 3.0, 4.0, 5.0])

    def value(x: Array) -> float:
        return float(x.prod() if function is gc.prod else x.cumprod() @ weights)

    net = gc.Net("net", dtype="float64")
    x = net.parameter("x", (5,), init=start)
    out = function(x)
    net.loss("loss", gc.sum(out * net.constant(weights)) if out.shape else out)
    ex = gc.Executor(gc.compile(net, batch=1, optimizer=gc.SGD(0.1), backend="numpy"))
    ex.forward(train=True)
    steps = 0.5 * np.eye(5)
    slopes = [value(start + step) - value(start - step) for step in steps]
    np.testing.assert_allclose(ex.backward()["x"], slopes, atol=1e-14)


def test_infinities_and_zeros_have_norms() -> None:
    net = gc.Net("net", dtype="float64")
    x = net.parameter("x", (3,), init=0.0)
    net.loss("loss", gc.l2_norm(x))
    low = net.constant(np.array([-np.inf, -np.inf]))
    net.output("nothing", gc.logsumexp(low))
    net.output("all", gc.logsumexp(-low))
    ex = gc.Executor(gc.compile(net, batch=1, optimizer=gc.SGD(0.1)))
    found = ex.forward(train=True)
    assert (found["nothing"], found["all"]) == (-np.inf, np.inf)
    assert not ex.backward()["x"].any()


@pytest.mark.parametrize("row", [[0.0, 0.0], [3.0, 4.0], [1.0, np.nan]])
def test_slopes_of_a_norm_are_constant_where_it_is_zero(row: list[float]) -> None:
    """Of second order, too; the slopes of NaNs are NaN."""
    net = gc.Net("net", dtype="float64")
    x = net.parameter("x", (2,), init=np.array(row))
    (slope,) = gc.grad(gc.l2_norm(x), [x])
    net.output("slope", slope)
    net.loss("loss", slope[0])
    ex = gc.Executor(gc.compile(net, batch=1))
    first, second = ex.forward(train=True)["slope"], ex.backward()["x"]
    size = np.sqrt(row[0] ** 2 + row[1] ** 2)
    if size == 0:
        assert not first.any()
        assert not second.any()
    else:
        np.testing.assert_allclose(first, row / size, rtol=1e-12)
        bent = np.array([row[1] ** 2, -row[0] * row[1]]) / size**3
        np.testing.assert_allclose(second, bent, rtol=1e-12)


def test_mistakes_raise_errors() -> None:
    net = gc.Net("net")
    x, k = net.input("x", (gc.N, 4)), net.input("k", (gc.N, 4), dtype="int64")
    wrong: dict[str, Callable[[], object]] = {
        "mean: x is int64, mean takes floats": lambda: gc.mean(k),
        "sum: x is bool, sum takes numbers": lambda: gc.sum(x > 0),
        "the batch dimension cannot be cut": lambda: gc.prod(x),
        "batch dimension cannot be cut": lambda: gc.cumprod(x, 0),
        "axis 0 of .N, 4. is the batch's": lambda: gc.topk(x, 1, 0),
        "topk 'best.indices': k is 5, axis 1 has 4 entries": lambda: gc.topk(x, 5, name="best"),
        "x is int64, topk takes floats and smaller": lambda: gc.sort(k),
        "cumsum: x is bool": lambda: gc.cumsum(x > 0),
        "axis 2 does not exist": lambda: gc.cumsum(x, 2),
    }
    for message, call in wrong.items():
        with pytest.raises(GraphError, match=message):
            call()
