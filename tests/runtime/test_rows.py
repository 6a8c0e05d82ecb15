"""Rows in are rows out, whatever their number, and a large file is read piece by piece."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import graphc as gc


def executor(batch: int = 50, backend: str | None = None) -> gc.Executor:
    """Three hidden units over four features; its weights are read back for NumPy."""
    net = gc.Net("small")
    x = net.input("x", (gc.N, 4))
    y = net.input("y", (gc.N,), dtype="int64")
    scores = gc.affine(gc.relu(gc.affine(x, 3, name="hidden")), 2, name="scores")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y))
    return gc.Executor(gc.compile(net, batch=batch, backend=backend), seed=1)


def by_numpy(ex: gc.Executor, x: np.ndarray) -> np.ndarray:
    """The scores in float64, from the definition."""
    w = {name: array.astype(np.float64) for name, array in ex.parameters.items()}
    hidden = np.maximum(x @ w["hidden.weight"] + w["hidden.bias"], 0)
    return hidden @ w["scores.weight"] + w["scores.bias"]


@pytest.mark.parametrize("rows", [0, 1, 49, 50, 51, 127, 100_000])
def test_rows_in_are_rows_out(rows: int) -> None:
    ex = executor(batch=50 if rows < 1000 else 4096)
    x = np.random.default_rng(rows).normal(size=(rows, 4))
    found = ex.predict(x)
    assert (found.shape, found.dtype) == ((rows, 2), np.float32)
    np.testing.assert_allclose(found, by_numpy(ex, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["numpy", None])
def test_a_loaded_model_reads_a_mapped_file(tmp_path: Path, backend: str | None) -> None:
    ex = executor(backend=backend)
    x = np.random.default_rng(0).normal(size=(1001, 4))
    np.save(tmp_path / "x.npy", x)
    gc.save(tmp_path / "small.gc", ex)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    found = gc.load(tmp_path / "small.gc").predict(mapped)
    np.testing.assert_array_equal(found, ex.predict(x))
    np.testing.assert_allclose(found[::-1], ex.predict(mapped[::-1]), rtol=1e-5)
    assert type(found) is np.ndarray


def test_no_rows_of_every_output_and_on_every_axis() -> None:
    net = gc.Net("odd")
    x = net.input("x", (3, 2 * gc.N))
    k = net.input("k", (gc.N,), dtype="int32")
    net.output("columns", gc.transpose(x, (1, 0)))
    net.output("k2", k * 2)
    net.output("total", gc.sum(x))
    ex = gc.Executor(gc.compile(net, batch=4))
    found = ex.predict(np.zeros((3, 0)), np.zeros(0, np.int32))
    assert {name: array.shape for name, array in found.items()} == {"columns": (0, 3), "k2": (0,)}
    assert found["k2"].dtype == np.int32
    assert ex.predict(x=np.zeros((3, 0))).shape == (0, 3)


def test_an_input_that_all_rows_share_is_fed_whole_with_every_piece() -> None:
    net = gc.Net("shared", dtype="float64")
    x, w = net.input("x", (gc.N, 3)), net.input("w", (3, 2))
    net.output("out", x @ w)
    ex = gc.Executor(gc.compile(net, batch=4))
    x, w = np.arange(33.0).reshape(11, 3), np.arange(6.0).reshape(3, 2)
    np.testing.assert_allclose(ex.predict(x, w), x @ w)
    assert ex.predict(x[:0], w).shape == (0, 2)


def test_predict_and_evaluate_convert_a_piece_at_a_time() -> None:
    ex = executor(batch=500)
    x, y = np.zeros((50_000, 4)), np.zeros(50_000, np.int32)
    ex.predict(x[:500])
    ex.evaluate(x[:500], y[:500])
    tracemalloc.start()
    ex.predict(x)
    predict = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    ex.evaluate(x, y)
    evaluate = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert predict < 50_000 * 2 * 4 + 100_000  # the scores, and not the 800,000 bytes of x
    assert evaluate < 100_000


MISTAKES = {
    "rows": (
        {"x": np.zeros((3, 4)), "y": np.zeros(2, int)},
        "'x' has 3 rows, 'y' has 2",
        "all inputs of a run take the same batch",
    ),
    "shape": (
        {"x": np.zeros((0, 5))},
        "input 'x' takes (N, 4), the array has shape (0, 5)",
        "the batch dimension N is free, all others are as declared",
    ),
    "text": (
        {"x": np.full((300, 4), "a")},
        "input 'x' takes float32, the array is text",
        "convert it: x.astype('float32')",
    ),
    "a label far down": (
        {"x": np.zeros((300, 4)), "y": np.arange(300) // 270 * 2},
        "input 'y' holds the label 2 at row 270, there are 2 classes",
        "labels go from 0 to 1",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_of_the_whole_array(name: str) -> None:
    feeds, sentence, hint = MISTAKES[name]
    with pytest.raises(gc.FeedError) as caught:
        executor().predict(feeds)
    assert (caught.value.sentence, caught.value.hint) == (sentence, hint)
