"""Executors in int8: close to float32, equal on all backends, saved, proved; and refusals."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import FeedError, GraphError
from graphc.check.quantization import QuantizationReport
from graphc.data import load_digits, stratified_split
from graphc.ops.arithmetic import Quantize
from graphc.runtime.reference import evaluate
from tests.backends.loop_nets import LOOPS, loop_feeds
from tests.files.c_model import CModel

NATIVE = pytest.mark.needs("native")
IN_C = pytest.mark.needs("c")
BACKENDS = [
    "numpy",
    pytest.param("native", marks=NATIVE),
    pytest.param("c", marks=[IN_C, pytest.mark.slow]),
]


def rows() -> tuple[Any, Any, Any, Any]:
    """Digits to train on, and others."""
    x, y = load_digits()
    train, test = stratified_split(y, 0.4, seed=0)
    return x[train] / 16, y[train], x[test] / 16, y[test]


@cache
def trained() -> gc.Executor:
    """A net of images, with batch normalisation, that has learned the digits."""
    net = gc.Net("digits")
    x, y = net.input("x", (gc.N, 64)), net.input("y", (gc.N,), dtype="int64")
    h = gc.reshape(x, (gc.N, 1, 8, 8))
    h = gc.max_pool(gc.relu(gc.batchnorm(gc.conv2d(h, 8, 3, padding=1))), 2)
    h = gc.relu(gc.affine(gc.relu(gc.conv2d(h, 12, 3)), 30))
    net.output("scores", gc.affine(gc.dropout(h, keep_prob=0.9), 10, name="scores"))
    net.loss("loss", gc.softmax_loss(net["scores"], y))
    ex = gc.Executor(gc.compile(net, batch=64, optimizer=gc.Adam(0.01), backend="numpy"), seed=0)
    gc.fit(ex, rows()[:2], epochs=4, progress=False)
    return ex


@cache
def quantized() -> gc.Executor:
    return gc.quantize(trained(), rows()[0])


def report() -> QuantizationReport:
    return gc.compare_quantized(trained(), quantized(), rows()[2:])


def test_digits_lose_less_than_half_a_point() -> None:
    found = report()
    assert found.accuracy is not None
    before, after = found.accuracy
    assert before > 0.9
    assert abs(before - after) < 0.005
    assert [error.layer for error in found.layers][-1] == "scores"
    assert all(0 < error.relative < 0.03 for error in found.layers)
    assert found.weights[0] == 4 * found.weights[1] == 4 * (9 * 8 + 9 * 8 * 12 + 48 * 30 + 300)
    assert found.rows == len(rows()[2])
    assert "accuracy" in str(found)


def test_errors_are_those_of_the_values() -> None:
    x = rows()[2][:50]
    wanted, made = trained().predict(x), quantized().predict(x)
    off = (made - wanted).astype(np.float64)
    last = gc.compare_quantized(trained(), quantized(), x).layers[-1]
    np.testing.assert_allclose(last.relative, np.sqrt((off**2).sum() / (wanted**2.0).sum()), 1e-4)
    np.testing.assert_allclose(last.largest, np.abs(off).max(), 1e-4)


@pytest.mark.parametrize("by", BACKENDS)
def test_sums_are_those_of_the_reference_rules(by: str) -> None:
    """The sums of the first product are equal, and later ones if no rounding lies between."""
    graph = quantized().plan.declared
    x = rows()[2][:30].astype(np.float32)
    meant = evaluate(graph, {"x": x, "y": rows()[3][:30]}, {}, len(x), train=False)
    sums = [node.name for node in graph if node.type.dtype == "int32"]
    whole = [node.name for node in graph if node.type.dtype == "int8" and not node.op.is_source]
    assert len(sums) == 4 < len(whole)
    plan = gc.compile(graph, batch=30, backend=by, outputs=[*sums, *whole, "scores"])
    found = gc.Executor(plan).forward(x=x)
    assert np.array_equal(found[sums[0]], meant[sums[0]])
    for name in whole:
        assert np.abs(found[name].astype(int) - meant[name]).max() <= 1, name
    np.testing.assert_allclose(found["scores"], meant["scores"], atol=0.1)


RUNS = [
    pytest.param(("native", 7, 2), marks=NATIVE),
    pytest.param(("native", 64, 1), marks=[NATIVE, pytest.mark.slow]),
    pytest.param(("c", 20, 1), marks=[IN_C, pytest.mark.slow]),
]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run[0])
def test_bits_are_those_of_numpy_for_any_rows_and_threads(run: tuple[str, int, int]) -> None:
    x, graph = rows()[2][:70], quantized().plan.declared
    by, batch, threads = run
    found = gc.Executor(gc.compile(graph, batch=batch, backend=by, threads=threads)).predict(x)
    assert found.tobytes() == quantized().predict(x).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("cc", ["gcc", "clang"])
def test_exported_c_has_the_same_bits(cc: str, tmp_path: Path) -> None:
    x = rows()[2][:40]
    model = CModel(quantized(), tmp_path, "-O2", cc=cc, infer_only=True)
    found = model.call("infer", {"x": x})["scores"]
    assert found.tobytes() == quantized().predict(x).tobytes()


def test_it_prints_saves_loads_and_is_proved(tmp_path: Path) -> None:
    ex, x = quantized(), rows()[2][:20]
    path = tmp_path / "digits.int8.gc"
    gc.save(path, ex)
    again = gc.load(path, batch=5)
    assert str(again.plan.declared) == str(ex.plan.declared)
    assert np.array_equal(again.predict(x), ex.predict(x))
    gc.save(tmp_path / "digits.gc", gc.freeze(trained(), batch=64))
    assert path.stat().st_size < 0.6 * (tmp_path / "digits.gc").stat().st_size
    assert "proved" in str(ex.plan.verify())
    assert "int32" in str(ex.plan)


@pytest.mark.slow
def test_a_compilation_of_it_can_be_validated() -> None:
    gc.compile(quantized().plan.declared, batch=3, backend="numpy", validate=True)


def test_labels_may_still_be_fed() -> None:
    x, y = rows()[2:]
    out = quantized().forward(x=x[:4], y=y[:4])["scores"]
    assert np.array_equal(out, quantized().predict(x[:4]))


def test_a_value_that_is_zero_throughout() -> None:
    net = gc.Net("zero")
    net.output("y", gc.affine(gc.relu(-gc.abs(net.input("x", (gc.N, 2)))), 3))
    ex = gc.Executor(gc.compile(net, batch=4, backend="numpy"))
    x = np.ones((4, 2), np.float32)
    assert np.array_equal(gc.quantize(ex, x).predict(x), ex.predict(x))


def test_numbers_beyond_the_range_are_clipped() -> None:
    net = gc.Net("clip")
    w = net.constant(np.array([[1.0]], np.float32))
    net.output("y", gc.matmul(net.input("x", (gc.N, 1)), w))
    ex = gc.quantize(
        gc.Executor(gc.compile(net, batch=8, backend="numpy")), np.array([[2.0], [-1.0]])
    )
    x = np.array([[3.0], [-5.0], [1e30], [1.0], [127.5 / 63.5], [0.5 / 63.5]])
    steps = np.array([127, -127, 127, 64, 127, 0])
    np.testing.assert_allclose(ex.predict(x)[:, 0], steps / 63.5, rtol=1e-6)


def three_outputs() -> gc.Net:
    """A net with results of rows, of all rows, and of a logarithm between two products."""
    net = gc.Net("three")
    x = net.input("x", (gc.N, 2, 6, 6))
    h = gc.relu(gc.batchnorm(gc.conv2d(x, 4, 3, padding=1)))
    logs = gc.log(gc.mean(h, axis=(2, 3)))
    net.output("scores", gc.affine(gc.max_pool(h, 2), 3))
    net.output("logs", gc.affine(logs, 2))
    net.output("mean", gc.mean(gc.affine(h, 2)))
    net.output("second", gc.add(net.constant(np.float32([0.5, 2.0])), gc.affine(logs, 2)))
    return net


@pytest.mark.parametrize("by", BACKENDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_comes_out_as_nan_in_its_rows(by: str, bad: float) -> None:
    x = np.random.default_rng(0).normal(size=(20, 2, 6, 6)).astype(np.float32)
    ex = gc.quantize(gc.Executor(gc.compile(three_outputs(), batch=20, backend=by)), x)
    right = ex.forward(x=x)
    assert all(np.isfinite(array).all() for array in right.values())
    x[7, 1, 0, 3] = bad
    found = ex.forward(x=x)
    for name in ("scores", "logs", "second"):
        assert np.isnan(found[name][7]).all()
        assert np.array_equal(np.delete(found[name], 7, 0), np.delete(right[name], 7, 0))
    assert np.isnan(found["mean"])


@pytest.mark.needs("c")
@pytest.mark.parametrize("terms", [1, 31, 33])
def test_an_odd_number_of_terms_has_the_same_sums_in_c(terms: int) -> None:
    net = gc.Net("odd")
    net.output("y", gc.affine(net.input("x", (gc.N, terms)), 37))
    x = np.random.default_rng(0).normal(size=(20, terms)).astype(np.float32)
    found = {}
    for by in ("numpy", "c"):
        ex = gc.Executor(gc.compile(net, batch=20, backend=by), seed=0)
        found[by] = gc.quantize(ex, x).forward(x=x)["y"]
    assert np.array_equal(found["numpy"], found["c"])


def test_a_logarithm_between_products_gives_nan_to_its_rows() -> None:
    net = gc.Net("log")
    h = gc.log(net.input("x", (gc.N, 2)) @ net.constant(np.eye(2, dtype=np.float32)))
    net.output("y", h @ net.constant(np.ones((2, 3), np.float32)))
    x = np.array([[1.0, 2.0], [3.0, 4.0], [0.5, 5.0]], np.float32)
    ex = gc.quantize(gc.Executor(gc.compile(net, batch=8, backend="numpy")), x)
    found = ex.forward(x=np.array([[1.0, 2.0], [3.0, -4.0]]))["y"]
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()


def refusal(call: Any) -> str:
    with pytest.raises((GraphError, FeedError)) as caught:
        call()
    return str(caught.value)


def test_refusals() -> None:
    x = rows()[0]
    assert "takes an executor, not int" in refusal(lambda: gc.quantize(7, x))  # type: ignore[arg-type]
    assert "multiplies nothing by weights" in refusal(lambda: gc.quantize(quantized(), x))
    bad = np.where(np.arange(64) == 3, np.inf, x[:5])
    assert re.search(
        r"'x.*' is not finite on the data", refusal(lambda: gc.quantize(trained(), bad))
    )
    assert "the data have no rows" in refusal(lambda: gc.quantize(trained(), x[:0]))
    assert "x" in refusal(lambda: gc.quantize(trained(), x[:, :3]))
    mixed = refusal(lambda: gc.compare_quantized(trained(), trained(), x))
    assert "is not the net 'digits' in int8" in mixed
    assert "this plan is not frozen" in refusal(lambda: quantized().refresh(trained()))


def test_loops_stay_in_float() -> None:
    net = LOOPS["lstm"]("float32")
    ex = gc.Executor(gc.compile(net, batch=8))
    feeds = loop_feeds(net.graph(), 8)
    assert "by weights in float outside loops" in refusal(lambda: gc.quantize(ex, feeds))
    net.output("scores", gc.affine(net["lstm"], 3, axis=-1))
    ex = gc.Executor(gc.compile(net, batch=8))
    small = gc.quantize(ex, feeds)
    program = small.plan.programs["infer"]
    inside = [buffer.type.dtype for step in program.steps() for buffer in step.buffers.values()]
    assert "int8" in {b.type.dtype for b in program.buffers.values()} and "int8" not in inside
    wanted = ex.forward(feeds)["scores"]
    assert np.abs(small.forward(feeds)["scores"] - wanted).max() < 0.05 * np.abs(wanted).max()


@pytest.mark.parametrize("place", [0, 4, 9])
def test_a_range_is_that_of_all_rows(place: int) -> None:
    """Wherever the largest magnitude is: rows are read in batches."""
    net = gc.Net("line")
    net.output("y", gc.affine(net.input("x", (gc.N, 2)), 3))
    ex = gc.Executor(gc.compile(net, batch=4, backend="numpy"), seed=0)
    x = np.random.default_rng(0).uniform(-1, 1, (10, 2)).astype(np.float32)
    x[place, 1] = -6.35
    graph = gc.quantize(ex, x).plan.declared
    (step,) = (node.op.step for node in graph if isinstance(node.op, Quantize))
    assert step == pytest.approx(6.35 / 127)
