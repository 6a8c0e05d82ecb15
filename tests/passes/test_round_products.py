"""Products in bfloat16: which are rounded and where, and steps against a net by hand."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.ir.bfloat16 import multiplied, rounded
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ops.arithmetic import ToBfloat16

RNG = np.random.default_rng(5)


def classifier() -> gc.Net:
    """Return a net of two layers with a loss."""
    net = gc.Net("classifier")
    x, y = net.input("x", (gc.N, 7)), net.input("y", (gc.N,), dtype="int64")
    h = gc.relu(gc.affine(x, 9, name="hidden"))
    scores = net.output("scores", gc.affine(h, 4, name="scores"))
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def data(rows: int) -> dict[str, Array]:
    """Return a batch for the classifier."""
    x = RNG.standard_normal((rows, 7)).astype(np.float32)
    return {"x": x, "y": RNG.integers(0, 4, rows)}


def rounded_values(graph: Graph) -> set[str]:
    """Return the values that a graph rounds."""
    return {node.inputs[0] for node in graph if isinstance(node.op, ToBfloat16)}


def step_graph(precision: dict[str, str], net: gc.Net | None = None) -> Graph:
    """Return the graph of a training step."""
    plan = gc.compile(
        net or classifier(),
        batch=8,
        optimizer=gc.SGD(lr=0.1),
        backend="numpy",
        precision=precision,  # type: ignore[arg-type]
    )
    return plan.graphs["step"][-1].graph


def test_each_factor_is_rounded_once_for_all_its_products() -> None:
    graph = step_graph({"*": "bf16"})
    factors = {"x", "hidden.weight", "relu_1", "scores.weight", "d_scores", "d_hidden"}
    assert rounded_values(graph) == factors
    assert sum(isinstance(node.op, ToBfloat16) for node in graph) == len(factors)


def test_gradients_belong_to_the_layer_that_they_are_of() -> None:
    factors = {"relu_1", "scores.weight", "d_scores"}
    assert rounded_values(step_graph({"scores": "bf16"})) == factors
    assert rounded_values(step_graph({"*": "bf16", "hidden": "float32"})) == factors
    assert rounded_values(step_graph({"hidden": "float32", "*": "bf16"})) > factors


def dot(a: Array, b: Array) -> Array:
    """Return a product in bfloat16."""
    return multiplied(rounded(a), rounded(b))


def test_steps_equal_those_by_hand() -> None:
    plan = gc.compile(
        classifier(), batch=9, optimizer=gc.SGD(lr=0.5), backend="numpy", precision={"*": "bf16"}
    )
    ex = gc.Executor(plan, seed=3)
    w, b, v, c = (
        np.array(ex.parameters[name])
        for name in ("hidden.weight", "hidden.bias", "scores.weight", "scores.bias")
    )
    for _ in range(3):
        feeds = data(9)
        ex.step(feeds)
        h = np.maximum(dot(feeds["x"], w) + b, 0)
        scores = dot(h, v) + c
        e = np.exp(scores - scores.max(1, keepdims=True))
        d = (e / e.sum(1, keepdims=True) - np.eye(4, dtype=np.float32)[feeds["y"]]) / np.float32(9)
        dh = np.where(h > 0, dot(d, v.T), 0).astype(np.float32)
        v, c = v - np.float32(0.5) * dot(h.T, d), c - np.float32(0.5) * d.sum(0)
        w, b = w - np.float32(0.5) * dot(feeds["x"].T, dh), b - np.float32(0.5) * dh.sum(0)
    assert np.allclose(ex.parameters["hidden.weight"], w, rtol=2.0**-7, atol=2.0**-9)
    assert np.allclose(ex.parameters["scores.bias"], c, rtol=2.0**-7, atol=2.0**-9)


def test_inference_has_the_bits_of_products_by_hand() -> None:
    plan = gc.compile(classifier(), batch=9, backend="numpy", precision={"*": "bf16"})
    ex = gc.Executor(plan, seed=3)
    x = data(9)["x"]
    h = np.maximum(dot(x, ex.parameters["hidden.weight"]) + ex.parameters["hidden.bias"], 0)
    wanted = dot(h, ex.parameters["scores.weight"]) + ex.parameters["scores.bias"]
    assert np.array_equal(ex.forward(x=x)["scores"], wanted)


def test_frozen_weights_have_half_the_bytes() -> None:
    plan = gc.compile(classifier(), batch=9, backend="numpy", precision={"*": "bf16"})
    ex = gc.Executor(plan, seed=3)
    frozen = gc.freeze(ex, batch=9)
    graph = frozen.plan.graphs["infer"][-1].graph
    weights = [node.type for node in graph if node.op.is_constant and node.type.rank == 2]
    assert {type.dtype for type in weights} == {"bfloat16"}
    x = data(9)["x"]
    assert np.array_equal(frozen.predict(x), ex.predict(x))
    ex.parameters["scores.weight"] = 2 * ex.parameters["scores.weight"]
    frozen.refresh(ex)
    assert np.array_equal(frozen.predict(x), ex.predict(x))


def test_an_unknown_layer_is_told_with_those_there_are() -> None:
    with pytest.raises(
        gc.GraphError, match="no layer that multiplies float32 matches 'score'"
    ) as told:
        step_graph({"score": "bf16"})
    assert "hidden, scores" in str(told.value)


def test_an_unknown_precision_is_told() -> None:
    with pytest.raises(gc.GraphError, match="'f16' is not one of bf16, float32"):
        step_graph({"*": "f16"})
    with pytest.raises(gc.GraphError, match="not a mapping"):
        step_graph("fp16")  # type: ignore[arg-type]


def test_a_net_of_float64_has_no_layer_to_round() -> None:
    net = gc.Net("wide", dtype="float64")
    net.output("y", gc.affine(net.input("x", (gc.N, 3)), 2))
    with pytest.raises(gc.GraphError, match="no layer that multiplies float32"):
        gc.compile(net, batch=4, backend="numpy", precision={"*": "bf16"})


def test_users_do_not_cast_to_bfloat16() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3))
    with pytest.raises(gc.GraphError, match="factors of products alone"):
        gc.cast(x, "bfloat16")
