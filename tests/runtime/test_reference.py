"""The slow interpreter: values by name, layers in both modes, and the state after a step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from graphc.base.errors import FeedError, GraphError
from graphc.declare.net import Net
from graphc.ir.build import apply
from graphc.ir.op import Array
from graphc.ir.tensor_type import N
from graphc.kernels.philox import keep_words, stream_of
from graphc.ops.autodiff import grad
from graphc.ops.dropout import dropout
from graphc.ops.elementwise import Unary
from graphc.ops.linalg import affine
from graphc.ops.losses.classes import softmax_loss
from graphc.ops.norm import batchnorm
from graphc.ops.select import relu
from graphc.ops.sums import sum_
from graphc.runtime.reference import evaluate, initial_state, next_state
from passes.specialize import Specialize

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 4))
Y = np.array([0, 1, 2, 0, 1])


def seed_net(dtype: str = "float64") -> Net:
    net = Net("seed", dtype=dtype)
    x, y = net.input("x", (N, 4)), net.input("y", (N,), dtype="int64")
    h = dropout(relu(batchnorm(affine(x, 6))), keep_prob=0.5)
    scores = net.output("scores", affine(h, 3, name="scores"))
    net.loss("loss", softmax_loss(scores, y))
    return net


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_mean_what_their_ops_do(dtype: str, train: bool) -> None:
    graph = seed_net(dtype).graph()
    state = initial_state(graph, 3)
    feeds = {"x": X, "y": Y}
    layers = evaluate(graph, feeds, state, 5, train)
    expanded = Specialize(train)(graph)
    ops = evaluate(expanded, feeds, state, 5)
    for name in graph.outputs:
        ours = ops[expanded.outputs[name]]
        np.testing.assert_allclose(ours, layers[graph.outputs[name]], rtol=1e-6)
        assert ours.dtype == dtype


def test_a_training_forward_by_hand() -> None:
    graph = seed_net().graph()
    state = initial_state(graph, 3)
    values = evaluate(graph, {"x": X, "y": Y}, state, 5, train=True)
    h = X @ state["affine_1.weight"] + state["affine_1.bias"]
    h = (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5)
    words = keep_words(3, stream_of("dropout_1"), 0, 5, 6)
    h = np.maximum(h, 0) * (words < 2**31) / 0.5
    scores = h @ state["scores.weight"] + state["scores.bias"]
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(values["scores"], scores, rtol=1e-12)
    loss = values[graph.outputs["loss"]]
    np.testing.assert_allclose(loss, -np.log(p[range(5), Y]).mean(), rtol=1e-12)


def test_the_next_state() -> None:
    graph = Specialize(train=True)(seed_net().graph())
    state = initial_state(graph, 0)
    values = evaluate(graph, {"x": X, "y": Y}, state, 5)
    after = next_state(graph, values, state)
    h = X @ state["affine_1.weight"]
    np.testing.assert_allclose(after["batchnorm_1.running_mean"], 0.1 * h.mean(0))
    np.testing.assert_allclose(after["batchnorm_1.running_var"], 0.9 + 0.1 * h.var(0))
    assert (state["draws"], after["draws"]) == (0, 1)
    assert after.keys() == state.keys()
    after["affine_1.weight"][:] = 0
    assert state["affine_1.weight"].all(), "the new state shares no memory with the old"


def test_the_initial_state_depends_on_seed_and_name_only() -> None:
    first, again, other = (initial_state(seed_net().graph(), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first["scores.weight"], again["scores.weight"])
    assert (first["scores.weight"] != other["scores.weight"]).all()
    assert first["seed"] == 1 and first["seed"].dtype == np.uint64
    assert (first["batchnorm_1.running_var"] == 1).all()
    assert initial_state(seed_net().graph(), -1)["seed"] == 2**64 - 1


def test_missing_and_misshapen_arrays() -> None:
    graph = seed_net().graph()
    state = initial_state(graph, 0)
    with pytest.raises(FeedError, match="input 'y' has no feed array"):
        evaluate(graph, {"x": X}, state, 5)
    with pytest.raises(FeedError, match=r"takes \(N, 4\), with N = 3 that is \(3, 4\); the array"):
        evaluate(graph, {"x": X, "y": Y}, state, 3)
    with pytest.raises(FeedError, match=r"parameter 'affine_1.weight' has no state array"):
        evaluate(graph, {"x": X, "y": Y}, {}, 5)


def test_a_gradient_must_be_expanded_first() -> None:
    net = Net("penalty", dtype="float64")
    x = net.input("x", (N, 2))
    net.output("slope", grad(sum_(x * x), x))
    with pytest.raises(GraphError, match=r"(?s)no value before it is expanded.*specialize first"):
        evaluate(net.graph(), {"x": X[:, :2]}, {}, 5)
    graph = Specialize(train=False)(net.graph())
    state = initial_state(graph, 0)
    values = evaluate(graph, {"x": X[:, :2]}, state, 5)
    np.testing.assert_allclose(values[graph.outputs["slope"]], 2 * X[:, :2])


def test_a_rule_that_breaks_its_own_promise_is_told() -> None:
    @dataclass(frozen=True)
    class Promoting(Unary):
        def reference(self, ins: list[Array]) -> Array:  # type: ignore[override]
            return ins[0].astype("float64")

    net = Net("wrong")
    net.output("out", apply(Promoting(), net.input("x", (N,))))
    with pytest.raises(GraphError, match="promoting_1': its reference rule gives float64"):
        evaluate(net.graph(), {"x": np.zeros(2)}, {}, 2)


def test_a_deep_graph_needs_no_recursion() -> None:
    net = Net("deep", dtype="float64")
    value = net.input("x", (N,))
    for _ in range(5000):
        value = value + 1.0
    net.output("out", value)
    values = evaluate(net.graph(), {"x": np.zeros(2)}, {}, 2)
    np.testing.assert_array_equal(values[value.name], [5000.0, 5000.0])
