"""gc.mlp beside the layers written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.error_text import error_text


def written_out(x: gc.Value) -> gc.Value:
    for width in (6, 5):
        x = gc.dropout(gc.relu(gc.batchnorm(gc.affine(x, width))), drop_prob=0.25)
    return gc.affine(x, 3, init="zeros")


def test_it_is_the_layers_written_out() -> None:
    graphs = []
    for make in (written_out, lambda x: gc.mlp(x, [6, 5], 3, batchnorm=True, dropout=0.25)):
        net = gc.Net("net")
        net.output("scores", make(net.input("x", (gc.N, 4))))
        graphs.append(str(net.graph()))
    assert graphs[0] == graphs[1]


def test_without_extras_it_is_affine_and_relu() -> None:
    net = gc.Net("net", dtype="float64")
    net.output("scores", gc.mlp(net.input("x", (gc.N, 4)), (6,), 3, name="last"))
    ex = gc.Executor(gc.compile(net, batch=5))
    rng = np.random.default_rng(0)
    assert not ex.parameters["last.weight"].any()
    ex.parameters["last.weight"] = rng.normal(size=(6, 3))
    x, p = rng.normal(size=(5, 4)), ex.parameters
    h = np.maximum(x @ p["affine_1.weight"] + p["affine_1.bias"], 0)
    wanted = h @ p["last.weight"] + p["last.bias"]
    np.testing.assert_allclose(ex.predict(x), wanted, rtol=1e-12)


@pytest.mark.parametrize(
    ("hidden", "dropout", "message"),
    [
        (
            100,
            0.0,
            "mlp: hidden is 100, it must list whole numbers from 1 up\n"
            "  hint: gc.mlp(x, [100, 50], 10) has two hidden layers and 10 outputs",
        ),
        (
            [100, 0],
            0.0,
            "mlp: hidden is [100, 0], it must list whole numbers from 1 up\n"
            "  hint: gc.mlp(x, [100, 50], 10) has two hidden layers and 10 outputs",
        ),
        (
            [10],
            1.0,
            "mlp: dropout is 1.0, it must be from 0 to below 1\n"
            "  hint: it is the share of values that is dropped: 0.2 drops one in five",
        ),
    ],
)
def test_mistakes(hidden: Any, dropout: float, message: str) -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 4))
    with pytest.raises(gc.GraphError) as caught:
        gc.mlp(x, hidden, 3, dropout=dropout)
    assert error_text(caught.value) == message
    assert list(net.graph()) == [net["x"].node]


def test_a_bad_number_of_units_leaves_nothing_behind() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 4))
    with pytest.raises(gc.GraphError, match="units"):
        gc.mlp(x, [6], 0)
    assert list(net.graph()) == [net["x"].node]
