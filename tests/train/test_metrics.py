"""Metrics as outputs of the net, against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from tests.error_text import error_text
from tests.train.nets import executor, table


def test_accuracy_and_mean_absolute_error_are_what_numpy_says() -> None:
    net = gc.Net("metrics")
    x = net.input("x", (gc.N, 3))
    y = net.input("y", (gc.N,), dtype="int32")
    z = net.input("z", (gc.N, 3))
    net.output("accuracy", gc.accuracy(x, y))
    net.output("error", gc.mean_absolute_error(x, z, name="mae"))
    ex = gc.Executor(gc.compile(net, batch=16))
    rng = np.random.default_rng(0)
    scores, other = rng.normal(size=(2, 16, 3)).astype(np.float32)
    labels = rng.integers(0, 3, 16).astype(np.int32)
    found = ex.forward(x=scores, y=labels, z=other)
    assert float(found["accuracy"]) == np.mean(scores.argmax(1) == labels)
    np.testing.assert_allclose(found["error"], np.abs(scores - other).mean(), rtol=1e-6)


def test_the_history_averages_metrics_by_rows() -> None:
    ex, held = executor(), table(19, seed=1)
    history = gc.fit(ex, table(), validation=held, epochs=2)
    scores = ex.predict(held[0])
    assert history.metrics["accuracy"][-1] == pytest.approx(np.mean(scores.argmax(1) == held[1]))


def test_any_scalar_output_is_a_metric() -> None:
    net = gc.Net("line")
    x, y = net.input("x", (gc.N,)), net.input("y", (gc.N,))
    guess = x * net.parameter("slope", (), init=1.0)
    net.output("guess", guess)
    net.output("largest gap", gc.max(gc.abs(guess - y)))
    net.loss("loss", gc.mse_loss(guess, y))
    ex = executor(net, batch=4)
    rows = np.arange(4, dtype=np.float32)
    history = gc.fit(ex, (rows, rows), validation=(rows, rows + 1))
    gaps = np.abs(ex.predict(rows) - (rows + 1))
    assert history.metrics == {"largest gap": [pytest.approx(gaps.max())]}


def test_operands_that_do_not_fit() -> None:
    net = gc.Net("wrong")
    x, y = net.input("x", (gc.N, 3)), net.input("y", (gc.N,))
    with pytest.raises(gc.GraphError) as caught:
        gc.accuracy(x, y)
    assert error_text(caught.value).splitlines()[0] == (
        "accuracy: labels are float32, accuracy takes class numbers"
    )
    with pytest.raises(gc.GraphError) as caught:
        gc.mean_absolute_error(x, y)
    assert error_text(caught.value).splitlines()[0] == (
        "mean_absolute_error: prediction is float32[N, 3], target is float32[N]; they must be equal"
    )
    assert "test_metrics.py" in str(caught.value)
