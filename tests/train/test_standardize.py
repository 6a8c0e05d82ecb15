"""Standardisation fitted to the training set, beside NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.train import standardize
from tests.error_text import error_text


def declare() -> gc.Net:
    net = gc.Net("net", dtype="float64")
    x, y = net.input("x", (gc.N, 3)), net.input("y", (gc.N,))
    h = net.output("h", gc.standardize(x, name="s"))
    guess = gc.reshape(gc.affine(h, 1, name="line"), (gc.N,))
    net.loss("loss", gc.mse_loss(guess, gc.standardize(y, name="t")))
    return net


def executor(backend: str | None = None) -> gc.Executor:
    plan = gc.compile(declare(), batch=8, optimizer=gc.SGD(lr=0.1), backend=backend)
    return gc.Executor(plan)


def table(rows: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 3)) * [1.0, 100.0, 0.0] + [5.0, -1e4, 7.1]
    return x, x[:, 1] / 50 + 3


@pytest.mark.parametrize("backend", ["numpy", None])
def test_fit_takes_the_statistics_of_the_training_set(backend: str | None) -> None:
    x, y = table()
    ex = executor(backend)
    gc.fit(ex, (x, y), validation=(x[:3] + 9, y[:3]), epochs=2)
    np.testing.assert_allclose(ex.state["s.mean"], x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(ex.state["s.scale"], [*x[:, :2].std(axis=0), 1], rtol=1e-12)
    np.testing.assert_allclose([ex.state["t.mean"], ex.state["t.scale"]], [y.mean(), y.std()])
    found = ex.predict(x)
    wanted = (x - x.mean(axis=0)) / [*x[:, :2].std(axis=0), 1]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_fit_goes_on_with_the_statistics_that_are_there(tmp_path: Path) -> None:
    x, y = table()
    ex = executor()
    gc.fit(ex, (x, y))
    before = ex.state["s.mean"]
    again = gc.load(gc.save(tmp_path / "net.gc", ex))
    gc.fit(again, (x * 2, y))
    np.testing.assert_array_equal(again.state["s.mean"], before)
    np.testing.assert_array_equal(again.predict(x), ex.predict(x))


def test_weights_are_repetitions() -> None:
    x, y = table()
    times = np.arange(30) % 4
    ex, repeated = executor(), executor()
    gc.fit_standardize(ex, (x, y), weight=times)
    gc.fit_standardize(repeated, {"x": x.repeat(times, axis=0), "y": y.repeat(times)})
    for name in ("s.mean", "s.scale", "t.mean", "t.scale"):
        np.testing.assert_allclose(ex.state[name], repeated.state[name], rtol=1e-13)


def test_pieces_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = table()
    whole = standardize.statistics(x, np.ones(30))
    monkeypatch.setattr(standardize, "_PIECE", 12)
    for a, b in zip(whole, standardize.statistics(x, np.ones(30)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)


def test_a_constant_that_rounding_spreads_has_scale_1() -> None:
    x = np.full((1000, 1), 0.1, np.float32)
    x[::2] = np.nextafter(x[0], np.float32(1))
    mean, scale = standardize.statistics(x, np.ones(1000))
    assert scale.tolist() == [1.0] and mean[0] == pytest.approx(0.1)


def test_a_frozen_plan_keeps_them() -> None:
    x, y = table()
    ex = executor()
    gc.fit(ex, (x, y))
    fast = gc.freeze(ex, batch=4)
    np.testing.assert_allclose(fast.predict(x), ex.predict(x), rtol=1e-9, atol=1e-12)


def test_only_inputs_are_standardised() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3))
    with pytest.raises(gc.GraphError) as caught:
        gc.standardize(gc.relu(x))
    assert error_text(caught.value).splitlines()[0] == (
        "standardize: x is the result of relu, standardize takes an input of the net"
    )
    with pytest.raises(gc.GraphError) as caught:
        gc.standardize(net.input("k", (gc.N,), dtype="int64"))
    assert error_text(caught.value).splitlines()[0] == (
        "standardize 'standardize_1': x is int64[N], standardize takes floats of shape (N, ...)"
    )
    with pytest.raises(gc.GraphError) as caught:
        gc.standardize(net.input("fixed", (4, 3)))
    assert error_text(caught.value).splitlines()[0] == (
        "standardize: x is float32[4, 3], standardize takes floats of shape (N, ...)"
    )
    assert "standardize_1.mean" not in net.builder.nodes


def test_mistakes_change_nothing() -> None:
    x, y = table()
    ex = executor()
    with pytest.raises(gc.FeedError) as caught:
        gc.fit_standardize(ex, {"x": x})
    assert error_text(caught.value).splitlines()[0] == "fit_standardize: input 'y' is missing"
    for weight in (np.ones(3), -np.ones(30), np.zeros(30), np.full(30, np.nan), ["a"] * 30):
        with pytest.raises(gc.FeedError) as caught:
            gc.fit_standardize(ex, (x, y), weight=weight)
        assert error_text(caught.value) == (
            "fit_standardize: weight must have 30 numbers of 0 or more, not all 0\n"
            "  hint: leave it out to let every row count as much"
        )
    assert not ex.state["s.mean"].any() and (ex.state["s.scale"] == 1).all()


def test_missing_numbers_count_as_the_mean() -> None:
    """So they make the scale smaller, as repetitions of the mean do; by weights, too."""
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(40, 3)) * [1, 5, 0.1] + [3, -7, 0], rng.integers(0, 4, 40)
    x[rng.random(x.shape) < 0.4] = np.nan
    repeated = np.repeat(x, weight, axis=0)
    means = np.nanmean(repeated, axis=0)
    filled = np.where(np.isnan(repeated), means, repeated)
    found = standardize.statistics(x, weight.astype(float))
    np.testing.assert_allclose(found, (means, filled.std(axis=0)), rtol=1e-12)
