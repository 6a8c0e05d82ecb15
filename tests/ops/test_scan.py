"""Loops compute what a plain loop in Python does, row by row, and so do their gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.ops.row_loops import Graphc, Numpy, feeds_of, results

BACKENDS = ("numpy", "native")
ROWS, STEP = 3, 1e-5
Arrays = Mapping[str, Any]


def declared(
    seed: int, dtype: str = "float64", drops: bool = False, lengths: bool | None = None
) -> gc.Net:
    """The net of a seed, whose loss is that of `loss_of`."""
    lib = Graphc(dtype, drops)
    losses = []
    for name, value in results(lib, seed, lengths).items():
        lib.net.output(name, value)
        losses.append(gc.mean((value + 0.3) ** 2))
    lib.net.loss("loss", sum(losses[1:], losses[0]))
    return lib.net


def row_by_row(seed: int, feeds: Arrays, weights: dict[str, Any]) -> dict[str, Any]:
    """The results of all rows, each computed by itself."""
    n = len(feeds["z"])
    rows = [{name: x[i : i + 1] for name, x in feeds.items()} for i in range(n)]
    found = [results(Numpy(row, weights), seed, "lengths" in feeds) for row in rows]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def loss_of(found: Arrays) -> Any:
    return sum(((y + 0.3) ** 2).mean() for y in found.values())


def assert_near(found: Arrays, wanted: Arrays, tolerance: float) -> None:
    for name, array in wanted.items():
        assert found[name].shape == array.shape, name
        error = np.abs(found[name] - array).max(initial=0)
        assert error <= tolerance * max(np.abs(array).max(initial=0), 1), (name, error)


@pytest.mark.one_in(100)
@pytest.mark.parametrize("seed", range(200))
def test_values(seed: int) -> None:
    net = declared(seed, drops=True)
    feeds = feeds_of(net, ROWS, seed)
    wanted = row_by_row(seed, feeds, {})
    for backend in BACKENDS:
        ex = gc.Executor(gc.compile(net, batch=ROWS + 1, backend=backend))
        assert_near(ex.forward(feeds), wanted, 1e-12)


@pytest.mark.one_in(200)
@pytest.mark.parametrize("seed", range(200))
def test_gradients(seed: int) -> None:
    """Those of some numbers of each weight and input are central differences of the loss."""
    net = declared(seed)
    feeds, weights = feeds_of(net, ROWS, seed), dict[str, Any]()
    loss = loss_of(row_by_row(seed, feeds, weights))  # makes the weights
    sources = {**weights, **{name: x for name, x in feeds.items() if x.dtype.kind == "f"}}
    slopes = {name: _slopes(seed, feeds, weights, name) for name in sources}
    reached = [name for name, found in slopes.items() if any(found.values())]
    for backend in BACKENDS:
        ex = gc.Executor(gc.compile(net, batch=ROWS, wrt=reached, backend=backend))
        ex.forward(feeds, train=True)
        gradients = ex.backward()
        for name in reached:
            for index, slope in slopes[name].items():
                limit = 1e-7 * (1 + abs(slope)) + 1e-10 * loss
                assert abs(gradients[name][index] - slope) < limit, (backend, name, index)


def _slopes(
    seed: int, feeds: Arrays, weights: dict[str, Any], name: str
) -> dict[tuple[int, ...], float]:
    array = (weights if name in weights else feeds)[name]
    rng = np.random.default_rng(seed)
    picked = rng.choice(array.size, min(3, array.size), replace=False)
    found = {}
    for at in picked:
        index = tuple(int(i) for i in np.unravel_index(at, array.shape))
        ends = []
        for move in (STEP, -STEP):
            moved = array.copy()
            moved[index] += move
            of_weights = weights | ({name: moved} if name in weights else {})
            of_feeds = {**feeds, **({} if name in weights else {name: moved})}
            ends.append(loss_of(row_by_row(seed, of_feeds, of_weights)))
        found[index] = float(ends[0] - ends[1]) / (2 * STEP)
    return found


@pytest.mark.one_in(40)
@pytest.mark.parametrize("seed", range(200, 240))
def test_a_row_has_the_bits_that_it_has_alone(seed: int) -> None:
    """Whatever the lengths of the rows beside it, and for any number of threads."""
    net = declared(seed, "float32", lengths=True)
    feeds = feeds_of(net, 7, seed)
    kept: list[bytes] = []
    for threads in (1, 2):
        plan = gc.compile(net, batch=7, backend="native", threads=threads)
        together = _rows(gc.Executor(plan), feeds)
        for i, row in enumerate(together):
            assert _bits(_alone(gc.Executor(plan), feeds, i)) == _bits(row), (threads, i)
        kept.append(b"".join(map(_bits, together)))
    assert kept[0] == kept[1]


@pytest.mark.one_in(10)
@pytest.mark.parametrize("seed", range(200, 240))
def test_a_row_is_close_to_what_it_is_alone_with_numpy(seed: int) -> None:
    net = declared(seed, lengths=True)
    feeds = feeds_of(net, 7, seed)
    ex = gc.Executor(gc.compile(net, batch=7, backend="numpy"))
    for i, row in enumerate(_rows(ex, feeds)):
        assert_near(_alone(ex, feeds, i), row, 1e-12)


def _rows(ex: gc.Executor, feeds: Arrays) -> list[dict[str, Any]]:
    """The results of each row of a batch, without the loss, which is of all rows."""
    found = {name: y for name, y in ex.forward(feeds).items() if name != "loss"}
    return [{name: y[i : i + 1] for name, y in found.items()} for i in range(len(feeds["z"]))]


def _alone(ex: gc.Executor, feeds: Arrays, i: int) -> dict[str, Any]:
    return _rows(ex, {name: x[i : i + 1] for name, x in feeds.items()})[0]


def _bits(found: Arrays) -> bytes:
    return b"".join(np.ascontiguousarray(found[name]).tobytes() for name in sorted(found))


@pytest.mark.parametrize("off", [(), ("split_scans",)], ids=["split", "whole"])
def test_what_no_loss_depends_on_has_no_gradient(off: tuple[str, ...]) -> None:
    """Whatever else the loop computes, and whichever passes run: so nothing else decays."""
    net = gc.Net("two", dtype="float64")
    x, h0 = net.input("x", (gc.N, 4, 3)), net.input("h0", (gc.N, 3))

    def step(x: gc.Value, g: gc.Value, h: gc.Value) -> tuple[gc.Value, tuple[gc.Value, gc.Value]]:
        g = gc.tanh(gc.affine(g, 3, name="other") + h)
        h = gc.tanh(gc.affine(x, 3, name="own") + h)
        return h, (g, h)

    ys, (last, _) = gc.scan(step, x, (h0, h0), name="loop")
    net.output("last", last)
    net.loss("loss", gc.mean(ys**2))
    plan = gc.compile(net, batch=2, backend="numpy", passes=gc.passes.without(*off))
    ex = gc.Executor(plan)
    ex.forward({"x": np.ones((2, 4, 3)), "h0": np.ones((2, 3))}, train=True)
    assert set(ex.backward()) == {"loop.own.weight", "loop.own.bias"}


@pytest.mark.parametrize(("dtype", "least"), [("float32", 80), ("float64", 900)])
@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_a_gradient_that_vanishes_becomes_zero(backend: str, dtype: str, least: int) -> None:
    steps = least + 40
    net = gc.Net("halves", dtype=dtype)
    x = net.input("x", (gc.N, steps))
    start = net.input("start", (gc.N,))
    _, last = gc.scan(lambda x, h: (0.5 * h + x, 0.5 * h + x), x, start)
    net.loss("last", gc.sum(last))
    ex = gc.Executor(gc.compile(net, batch=2, wrt=["x", "start"], backend=backend))
    ex.forward(x=np.ones((2, steps)), start=np.ones(2), train=True)
    slopes = ex.backward()
    exact = 0.5 ** np.arange(steps, dtype=dtype)[::-1]
    wanted = np.where(np.arange(steps)[::-1] > least, 0, exact)
    np.testing.assert_array_equal(slopes["x"], np.stack([wanted, wanted]))
    assert not slopes["start"].any()
