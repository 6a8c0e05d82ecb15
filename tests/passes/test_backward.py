from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.ir.build import Builder
from graphc.ir.graph import Graph
from graphc.ir.verify import verify
from graphc.ops.reduce import Mean
from graphc.ops.source import Input
from graphc.runtime.reference import evaluate
from passes.backward import Backward
from tests.passes.same import differentiated, specialized
from tests.tools.generate import nets, random_feeds, random_state

BEFORE = """\
graph net
x: float32[N, 4] = input()
w: float32[4, 3] = parameter()  init=He()
h: float32[N, 3] = matmul(x, w)
y: float32[N, 3] = tanh(h)
loss: float32[] = sum(y)  axes=(0, 1)
output loss = loss
losses loss
"""

AFTER = """\
graph net
x: float32[N, 4] = input()
w: float32[4, 3] = parameter()  init=He()
h: float32[N, 3] = matmul(x, w)
y: float32[N, 3] = tanh(h)
loss: float32[] = sum(y)  axes=(0, 1)
d_loss: float32[] = constant()  data=[1.0]
d_loss.reshape_1: float32[1, 1] = reshape(d_loss)
d_y: float32[N, 3] = broadcast_to(d_loss.reshape_1)
"""


def simple() -> Graph:
    net = gc.Net("net")
    h = gc.matmul(net.input("x", (gc.N, 4)), net.parameter("w", (4, 3)), name="h")
    net.loss("loss", gc.sum(gc.tanh(h, name="y"), name="loss"))
    return net.graph()


def test_golden() -> None:
    graph = simple()
    assert str(graph) == BEFORE
    after = str(Backward(("loss",), ("w",))(graph))
    assert after.startswith(AFTER)
    assert after.endswith(
        "d_w: float32[4, 3] = matmul(x, d_h)  trans_a=True\n"
        "output loss = loss\n"
        "losses loss\n"
        "gradient w = d_w\n"
    )


def test_gradient_nodes_carry_the_lines_of_their_nodes() -> None:
    after = Backward(("loss",), ("w",))(simple())
    assert after["d_w"].locs == after["h"].locs != ()


def test_cotangents_can_be_fed() -> None:
    net = gc.Net("net")
    net.output("y", net.input("x", (gc.N, 2)) * net.parameter("w", (2,)))
    graph = Backward(("y",), ("w",), fed=True)(net.graph())
    x, dy = np.ones((3, 2), np.float32), np.arange(6, dtype=np.float32).reshape(3, 2)
    values = evaluate(graph, {"x": x, "cotangent:y": dy}, {"w": np.ones(2)}, 3)
    np.testing.assert_array_equal(values[graph.gradients["w"]], [6, 9])


def test_an_operand_that_is_read_twice_gets_both_parts() -> None:
    net = gc.Net("net", dtype="float64")
    x = net.input("x", (gc.N,))
    net.loss("loss", gc.sum(x / x + x * x - x + gc.maximum(x, x)))
    graph = Backward(("loss",), ("x",))(net.graph())
    verify(graph)
    x_value = np.array([2.0, -3.0])
    values = evaluate(graph, {"x": x_value}, {}, 2)
    np.testing.assert_allclose(values[graph.gradients["x"]], 2 * x_value)


@settings(max_examples=12, deadline=None)
@given(net=nets(without=("stopped",)), seed=st.integers(0, 1000))
def test_random_nets_against_central_differences(net: gc.Net, seed: int) -> None:
    """The derivative along a random direction of all parameters at once."""
    graph, forward = differentiated(net), specialized(net)
    feeds, state = random_feeds(graph, 3, seed), random_state(graph, seed)
    rng = np.random.default_rng(seed)
    direction = {name: rng.standard_normal(state[name].shape) for name in graph.gradients}

    def loss(step: float) -> float:
        moved: dict[str, Any] = {k: state[k] + step * d for k, d in direction.items()}
        values = evaluate(forward, feeds, {**state, **moved}, 3)
        return float(sum(values[forward.outputs[name]] for name in forward.losses))

    def slope(h: float) -> float:
        return (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h)

    numeric = slope(1e-5)
    assume(np.isclose(numeric, slope(2.5e-6), rtol=1e-5, atol=1e-6))  # no kink is that near
    values = evaluate(graph, feeds, state, 3)
    exact = sum(np.vdot(values[graph.gradients[k]], d) for k, d in direction.items())
    np.testing.assert_allclose(exact, numeric, rtol=1e-5, atol=1e-6)


def unreached(*losses: str) -> str:
    net = gc.Net("net")
    x, w = net.input("x", (gc.N, 2)), net.parameter("w", (3,))
    for name in losses:
        net.loss(name, gc.mean(x))
    net.output("w", w)
    with pytest.raises(gc.GraphError) as caught:
        Backward(losses, ("w",), required=("w",))(net.graph())
    assert caught.value.loc == net.graph()["w"].locs[0]
    return str(caught.value)


def test_a_required_gradient_that_nothing_reaches_is_told() -> None:
    one, two = unreached("a"), unreached("a", "b")
    assert one.startswith("loss 'a' does not depend on parameter 'w', so it has no gradient\n  at ")
    assert two.startswith("losses a, b do not depend on parameter 'w', so it has no gradient\n")
    assert one.endswith("  hint: leave it out of wrt, or use it on the way to a loss")


def test_it_is_told_of_a_node_without_lines_too() -> None:
    b = Builder("net")
    b.locs = ()
    x = b.apply(Input((2,), "float64"), name="x")
    b.outputs["a"] = b.apply(Mean((0,)), x, name="a").name
    other = b.apply(Input((2,), "float64"), name="other")
    with pytest.raises(gc.GraphError, match="loss 'a' does not depend on input 'other'"):
        Backward(("a",), (other.name,), required=(other.name,))(b.graph())


def test_a_value_that_is_two_losses_counts_twice() -> None:
    net = gc.Net("net", dtype="float64")
    x = net.input("x", (gc.N, 2))
    net.loss("a", gc.sum(x * 3, name="total"))
    graph = net.graph()
    twice = Graph("net", graph, outputs={"a": "total", "b": "total"}, losses=["a", "b"])
    made = Backward(("a", "b"), ("x",))(twice)
    values = evaluate(made, {"x": np.zeros((1, 2))}, {}, 1)
    np.testing.assert_array_equal(values[made.gradients["x"]], [[6.0, 6.0]])


def test_a_name_may_stand_for_the_node_that_took_its_place() -> None:
    graph = simple()
    known = Graph("net", graph, outputs=graph.outputs, losses=graph.losses, gradients={"gone": "h"})
    made = Backward(("loss",), ("gone",))(known)
    assert made.gradients == {"gone": Backward(("loss",), ("h",))(graph).gradients["h"]}


def test_fed_cotangents_carry_the_lines_of_their_output() -> None:
    graph = simple()
    made = Backward(("loss",), ("w",), fed=True)(graph)
    assert made["cotangent:loss"].locs == graph["loss"].locs != ()
