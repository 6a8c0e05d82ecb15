"""Functions of each element on both backends: NumPy's meaning, also where it is odd."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import GraphError
from graphc.ir.op import Array

BACKENDS = ("numpy", "native")
FLOATS = np.array([-np.inf, -2.5, -1.5, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.5, 3.0, np.inf, np.nan])
WHOLE = np.array([-(2**31), -7, -2, -1, 0, 1, 2, 7, 2**31 - 1], np.int32)

Made = Callable[[gc.Value], gc.Value]
OF_FLOATS: dict[str, tuple[Made, Callable[[Array], Any]]] = {
    "floor": (gc.floor, np.floor),
    "ceil": (gc.ceil, np.ceil),
    "round": (gc.round, np.round),
    "reciprocal": (gc.reciprocal, np.reciprocal),
    "sin": (gc.sin, np.sin),
    "cos": (gc.cos, np.cos),
    "tan": (gc.tan, np.tan),
    "asin": (gc.asin, np.arcsin),
    "acos": (gc.acos, np.arccos),
    "atan": (gc.atan, np.arctan),
    "sinh": (gc.sinh, np.sinh),
    "cosh": (gc.cosh, np.cosh),
    "asinh": (gc.asinh, np.arcsinh),
    "acosh": (gc.acosh, np.arccosh),
    "atanh": (gc.atanh, np.arctanh),
    "log1p": (gc.log1p, np.log1p),
    "expm1": (gc.expm1, np.expm1),
    "isnan": (gc.isnan, np.isnan),
    "isinf": (gc.isinf, np.isinf),
    "isfinite": (gc.isfinite, np.isfinite),
    "mod": (lambda x: x % 2, lambda x: np.mod(x, 2)),
    "mod below": (lambda x: gc.mod(x, -2), lambda x: np.mod(x, -2)),
    "fmod": (lambda x: gc.fmod(x, 2), lambda x: np.fmod(x, 2)),
    "floor_div": (lambda x: x // 2, lambda x: np.floor(x / 2)),
    "and": (lambda x: (x > 0) & (x < 1), lambda x: (x > 0) & (x < 1)),
    "or": (lambda x: (x > 1) | (x < 0), lambda x: (x > 1) | (x < 0)),
    "xor": (lambda x: (x > 0) ^ (x < 1), lambda x: (x > 0) ^ (x < 1)),
    "not": (lambda x: ~(x > 0), lambda x: ~(x > 0)),
    "power of a value": (lambda x: abs(x) ** x, lambda x: np.abs(x) ** x),
    "power of a number": (lambda x: 2**x, lambda x: 2.0**x),
    "relu6": (gc.relu6, lambda x: np.clip(x, 0, 6)),
    "hard_tanh": (gc.hard_tanh, lambda x: np.clip(x, -1, 1)),
    "thresholded_relu": (gc.thresholded_relu, lambda x: np.where(x > 1, x, 0)),
}
OF_WHOLE: dict[str, tuple[Made, Callable[[Array], Any]]] = {
    "abs": (gc.abs, np.abs),
    "sign": (gc.sign, np.sign),
    "neg": (lambda x: -x, np.negative),
    "clip": (lambda x: gc.clip(x, -2, 5), lambda x: np.clip(x, -2, 5)),
    "clip below": (lambda x: gc.clip(x, 1, None), lambda x: np.maximum(x, 1)),
    "clip above": (lambda x: gc.clip(x, None, 1), lambda x: np.minimum(x, 1)),
    "floor_div": (lambda x: x // 3, lambda x: x // 3),
    "floor_div by less": (lambda x: x // -2, lambda x: x // -2),
    "floor_div by itself": (lambda x: gc.floor_div(x, x), lambda x: np.where(x == 0, 0, 1)),
    "trunc_div": (lambda x: gc.trunc_div(x, 3), lambda x: np.trunc(x / 3)),
    "trunc_div by less": (lambda x: gc.trunc_div(x, -2), lambda x: np.trunc(x / -2)),
    "mod": (lambda x: x % 3, lambda x: x % 3),
    "fmod": (lambda x: gc.fmod(x, 3), lambda x: np.fmod(x, 3)),
    "bits of both": (lambda x: x & 5, lambda x: x & 5),
    "bits of either": (lambda x: x | 5, lambda x: x | 5),
    "bits of one": (lambda x: x ^ 5, lambda x: x ^ 5),
    "bits inverted": (lambda x: ~x, lambda x: ~x),
}


def outputs(cases: Mapping[str, tuple[Made, Any]], x: Array, backend: str) -> dict[str, Array]:
    net = gc.Net("net", dtype="float64")
    value = net.input("x", gc.N, dtype=str(x.dtype))
    for name, (make, _) in cases.items():
        net.output(name, make(value))
    plan = gc.compile(net, batch=len(x), losses=[], backend=backend)
    return gc.Executor(plan).forward(x=x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_floats(backend: str, dtype: str) -> None:
    x = FLOATS.astype(dtype)
    with np.errstate(all="ignore"):
        for name, found in outputs(OF_FLOATS, x, backend).items():
            wanted = np.asarray(OF_FLOATS[name][1](x))
            assert found.dtype == wanted.dtype, name
            tolerance = 4 * float(np.finfo(dtype).eps)
            np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=0, err_msg=name)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_whole_numbers(backend: str, dtype: str) -> None:
    x = WHOLE.astype(dtype)
    with np.errstate(all="ignore"):
        for name, found in outputs(OF_WHOLE, x, backend).items():
            assert found.dtype == x.dtype, name
            np.testing.assert_array_equal(found, OF_WHOLE[name][1](x), err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_division_of_whole_numbers_by_zero_gives_zero(backend: str) -> None:
    cases: dict[str, tuple[Made, Any]] = {
        "floor_div": (lambda x: x // (x - x), 0),
        "trunc_div": (lambda x: gc.trunc_div(x, x - x), 0),
        "mod": (lambda x: x % (x - x), 0),
    }
    for found in outputs(cases, WHOLE, backend).values():
        assert not found.any()


def test_gradients_of_a_power_are_finite_at_zero() -> None:
    net = gc.Net("net", dtype="float64")
    a = net.parameter("a", (3,), init=np.array([0.0, 0.0, 2.0]))
    b = net.parameter("b", (3,), init=np.array([0.0, 2.0, 3.0]))
    net.loss("loss", gc.sum(a**b))
    ex = gc.Executor(gc.compile(net, batch=1, optimizer=gc.SGD(0.1)))
    ex.forward(train=True)
    found = ex.backward()
    np.testing.assert_allclose(found["a"], [0, 0, 12])
    np.testing.assert_allclose(found["b"], [0, 0, 8 * np.log(2)])


def test_mistakes_raise_errors() -> None:
    net = gc.Net("net")
    x, k = net.input("x", gc.N), net.input("k", gc.N, dtype="int64")
    wrong: dict[str, Callable[[], object]] = {
        "floor: x is int64, floor takes floats": lambda: gc.floor(k),
        "sin: x is int64, sin takes floats": lambda: gc.sin(k),
        "abs: x is bool, abs takes numbers": lambda: gc.abs(x > 0),
        "trunc_div: a is float32, trunc_div takes whole numbers": lambda: gc.trunc_div(x, 2),
        "mod: a is bool, mod takes numbers": lambda: (x > 0) % (x > 1),
        "and: b is float32": lambda: gc.logical_and(x > 0, x),
        "pow: a is int64, pow takes floats": lambda: k**k,
        "not_equal: x is int64, integers and bools are always finite": lambda: gc.isnan(k),
        "celu: alpha is 0, it must be above 0": lambda: gc.celu(x, 0),
        "shrink: threshold is -1": lambda: gc.shrink(x, -1),
    }
    for message, call in wrong.items():
        with pytest.raises(GraphError, match=message):
            call()
