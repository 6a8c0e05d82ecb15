"""Whole numbers of 8 and 16 bits: stored, computed with and cast on both backends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import FeedError
from graphc.ir.op import Array

BACKENDS = ("numpy", "native")
DTYPES = ("int8", "uint8", "int16", "uint16")
BOTH = pytest.mark.parametrize("backend", BACKENDS)
EACH = pytest.mark.parametrize("dtype", DTYPES)

Made = Callable[[gc.Value, gc.Value], gc.Value]
CASES: dict[str, tuple[Made, Callable[[Array, Array], Any]]] = {
    "add": (lambda a, b: a + b, lambda a, b: a + b),
    "sub": (lambda a, b: a - b, lambda a, b: a - b),
    "mul": (lambda a, b: a * b * 3, lambda a, b: a * b * a.dtype.type(3)),
    "maximum": (gc.maximum, np.maximum),
    "floor_div": (lambda a, b: a // (b | 1), lambda a, b: a // (b | 1)),
    "trunc_div": (lambda a, b: gc.trunc_div(a, b | 1), lambda a, b: np.trunc(a / (b | 1))),
    "mod": (lambda a, b: a % (b | 1), lambda a, b: a % (b | 1)),
    "and": (lambda a, b: a & b, lambda a, b: a & b),
    "not": (lambda a, b: ~a ^ b, lambda a, b: ~a ^ b),
    "less": (lambda a, b: a < b, lambda a, b: a < b),
    "where": (lambda a, b: gc.where(a == b, a, b), lambda a, b: np.where(a == b, a, b)),
    "sign": (lambda a, b: gc.sign(a) + gc.abs(b), lambda a, b: np.sign(a) + np.abs(b)),
    "sum": (lambda a, b: gc.sum(a, 1), lambda a, b: a.sum(1, dtype=a.dtype)),
    "min": (lambda a, b: gc.min(a, 0), lambda a, b: a.min(0)),
    "cumsum": (lambda a, b: gc.cumsum(a, 1), lambda a, b: a.cumsum(1, dtype=a.dtype)),
    "sort": (lambda a, b: gc.sort(a, 1), lambda a, b: np.sort(a, 1)),
    "concat": (lambda a, b: gc.concat([a, b])[:, 3:9], lambda a, b: np.hstack([a, b])[:, 3:9]),
    "flip": (lambda a, b: gc.flip(a, 1), lambda a, b: a[:, ::-1]),
    "gather": (lambda a, b: gc.gather(a, [2, 0], 1), lambda a, b: a[:, [2, 0]]),
    "to float": (
        lambda a, b: gc.cast(a, "float32") * 0.5,
        lambda a, b: a.astype("float32") * np.float32(0.5),
    ),
    "to int64": (lambda a, b: gc.cast(a, "int64") + 1, lambda a, b: a.astype("int64") + 1),
    "to bool": (lambda a, b: gc.cast(a, "bool"), lambda a, b: a.astype("bool")),
}


def numbers(dtype: str, seed: int, rows: int = 21) -> Array:
    ends = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(ends.min, ends.max, (rows, 6), dtype, True)


@pytest.mark.one_in(3)
@BOTH
@EACH
def test_they_are_computed_as_numpy_does(dtype: str, backend: str) -> None:
    net = gc.Net("small")
    a, b = (net.input(name, (gc.N, 6), dtype=dtype) for name in "ab")
    for name, (make, _) in CASES.items():
        net.output(name, make(a, b))
    x, y = numbers(dtype, 0), numbers(dtype, 1)
    plan = gc.compile(net, batch=32, losses=[], backend=backend)
    assert plan.verify().ok
    for name, found in gc.Executor(plan).forward(a=x, b=y).items():
        wanted = np.asarray(CASES[name][1](x, y))
        assert found.dtype == wanted.dtype or name == "trunc_div", name
        np.testing.assert_array_equal(found, wanted, err_msg=name)


@BOTH
@EACH
def test_floats_are_cast_to_them(dtype: str, backend: str) -> None:
    net = gc.Net("small")
    net.output("out", gc.cast(net.input("x", (gc.N, 3)), dtype))
    x = np.array([[0.0, 1.9, 100.2], [7.5, 3.0, 126.99]], "float32")
    found = gc.Executor(gc.compile(net, batch=2, backend=backend)).forward(x=x)["out"]
    np.testing.assert_array_equal(found, x.astype(dtype))
    assert found.dtype == dtype


@BOTH
@EACH
def test_they_index_and_are_checked(dtype: str, backend: str) -> None:
    net = gc.Net("small")
    ids = net.input("ids", (gc.N, 2), dtype=dtype)
    net.output("rows", gc.embedding(ids, 5, 3, name="table"))
    ex = gc.Executor(gc.compile(net, batch=4, backend=backend))
    places = np.array([[0, 4], [3, 1]], dtype)
    for _ in range(2):
        found = ex.forward(ids=places)["rows"]
    np.testing.assert_array_equal(found, ex.parameters["table.weight"][places])
    for bad in (5, 100, -1) if dtype.startswith("int") else (5, 250):
        wrong = places.copy()
        wrong[1, 0] = bad
        with pytest.raises(FeedError, match=f"holds the index {bad} at row 1"):
            ex.forward(ids=wrong)


@EACH
def test_constants_are_saved(dtype: str, tmp_path: Path) -> None:
    net = gc.Net("small")
    x = net.input("x", (gc.N, 6), dtype=dtype)
    net.output("few", x + net.constant(numbers(dtype, 2, 1)))
    net.output("many", gc.sum(net.constant(numbers(dtype, 3, 40)), 0) + x)
    ex = gc.Executor(gc.compile(net, batch=4))
    gc.save(tmp_path / "small.gc", ex)
    again = gc.load(tmp_path / "small.gc")
    feed = numbers(dtype, 4, 3)
    for name, found in again.forward(x=feed).items():
        np.testing.assert_array_equal(found, ex.forward(x=feed)[name])
