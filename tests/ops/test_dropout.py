"""Dropout: masks are keyed by a seed and a counter, and a probability is a number."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.ir.tensor_type import Batch, TensorType
from graphc.ops.dropout import Dropout, DropoutMask

X = TensorType((Batch(1), 3), "float32")
SEED, DRAWS = TensorType((), "uint64"), TensorType((), "int64")


def test_keys_are_single_whole_numbers() -> None:
    layer, mask = Dropout(0.8, 1), DropoutMask(X.shape, "float32", 0.8, 1)
    assert layer.infer([X, SEED, DRAWS]) == X == mask.infer([SEED, DRAWS])
    for odd in (X, TensorType((), "float32"), TensorType((2,), "int64"), TensorType((), "bool")):
        with pytest.raises(ValueError, match=r"draws is .* keyed by single whole numbers"):
            layer.infer([X, SEED, odd])
        with pytest.raises(ValueError, match=r"seed is .* keyed by single whole numbers"):
            mask.infer([odd, DRAWS])


@pytest.mark.parametrize("given", [True, np.True_, "half", 0, float("nan"), 1.5])
def test_keep_prob_is_a_number_up_to_1(given: object) -> None:
    x = gc.Net("dropped").input("x", (gc.N, 4))
    with pytest.raises(gc.GraphError, match=r"dropout: keep_prob=.* is out of range"):
        gc.dropout(x, keep_prob=given)
    with pytest.raises(ValueError, match=r"it must lie in \(0, 1\]"):
        Dropout(given, 1).infer([X, SEED, DRAWS])


@pytest.mark.parametrize("given", [True, False, np.False_, "half", 1, -1e-17, float("nan")])
def test_drop_prob_is_a_number_below_1(given: object) -> None:
    x = gc.Net("dropped").input("x", (gc.N, 4))
    with pytest.raises(gc.GraphError, match=r"dropout: drop_prob=.* is out of range"):
        gc.dropout(x, drop_prob=given)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_each_step_of_each_loop_has_a_mask_of_its_own(backend: str) -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3, 200)) * net.parameter("w", (), init=1.0)

    def step(x: gc.Value) -> tuple[gc.Value, tuple[()]]:
        return gc.dropout(x, keep_prob=0.5), ()

    net.output("alone", gc.dropout(x[:, 0], keep_prob=0.5))
    for name in ("first", "second"):
        net.output(name, gc.scan(step, x, name=name)[0])
    net.loss("loss", gc.mean(net["first"]) + gc.mean(net["second"]) + gc.mean(net["dropout_1"]))
    ex = gc.Executor(gc.compile(net, batch=2, optimizer=gc.SGD(lr=0.1), backend=backend), seed=0)
    found = ex.forward(x=np.ones((2, 3, 200)), train=True)
    masks = [found["alone"], *(found[name][:, t] for name in ("first", "second") for t in range(3))]
    assert len({(mask > 0).tobytes() for mask in masks}) == 7


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_rows_may_come_at_any_axis(backend: str) -> None:
    masks = []
    for order in ((0, 1, 2), (1, 0, 2), (1, 2, 0)):
        net = gc.Net("turned")
        x = net.input("x", (gc.N, 5, 3)) * net.parameter("w", (), init=1.0)
        out = gc.dropout(gc.transpose(x, order), keep_prob=0.5, name="drop")
        assert out.name == "drop"
        net.output("out", gc.transpose(out, np.argsort(order).tolist()))
        net.loss("loss", gc.sum(out))
        ex = gc.Executor(gc.compile(net, batch=4, optimizer=gc.SGD(0.1), backend=backend), seed=0)
        masks.append(ex.forward(x=np.ones((4, 5, 3)), train=True)["out"])
        assert ex.backward()["w"] == masks[-1].sum()
        alone = gc.Executor(ex.plan, seed=0).forward(x=np.ones((2, 5, 3)), train=True)["out"]
        np.testing.assert_array_equal(alone, masks[-1][:2])  # whatever the batch is
        np.testing.assert_array_equal(ex.forward(x=np.ones((4, 5, 3)))["out"], 1)
    assert set(np.unique(masks[0])) == {0, 2}
    np.testing.assert_array_equal(masks[1], masks[0])
