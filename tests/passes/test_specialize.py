from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

import graphc as gc
from graphc.ir.op import Layer
from graphc.ir.verify import verify
from graphc.runtime.reference import evaluate
from passes.specialize import Specialize
from tests.tools.generate import nets, random_feeds, random_state

BEFORE = """\
graph net
x: float32[N, 4] = input()
a.weight: float32[4, 3] = parameter()  init=He()
a.bias: float32[3] = parameter()  init=Zeros()
a: float32[N, 3] = layer affine(x, a.weight, a.bias)
seed: uint64[] = state()  start=0.0
draws: int64[] = state()  start=0.0
d: float32[N, 3] = layer dropout(a, seed, draws)  keep_prob=0.5 stream=266206825
y: float32[N, 3] = tanh(d)
output y = y
"""

INFERENCE = """\
graph net
x: float32[N, 4] = input()
a.weight: float32[4, 3] = parameter()  init=He()
a.bias: float32[3] = parameter()  init=Zeros()
a: float32[N, 3] = affine(x, a.weight, a.bias)
seed: uint64[] = state()  start=0.0
draws: int64[] = state()  start=0.0
y: float32[N, 3] = tanh(a)
output y = y
"""

TRAINING = """\
graph net
x: float32[N, 4] = input()
a.weight: float32[4, 3] = parameter()  init=He()
a.bias: float32[3] = parameter()  init=Zeros()
a: float32[N, 3] = affine(x, a.weight, a.bias)
seed: uint64[] = state()  start=0.0
draws: int64[] = state()  start=0.0
d.mask: float32[N, 3] = dropout_mask(seed, draws)  keep_prob=0.5 stream=266206825
d: float32[N, 3] = mul(a, d.mask)
y: float32[N, 3] = tanh(d)
constant_1: int64[] = constant()  data=[1]
draws.next: int64[] = add(draws, constant_1)
output y = y
update draws = draws.next
"""


def dropped() -> gc.Net:
    net = gc.Net("net")
    h = gc.affine(net.input("x", (gc.N, 4)), 3, name="a")
    net.output("y", gc.tanh(gc.dropout(h, keep_prob=0.5, name="d"), name="y"))
    return net


def test_golden() -> None:
    graph = dropped().graph()
    assert str(graph) == BEFORE
    assert str(Specialize(train=False)(graph)) == INFERENCE
    assert str(Specialize(train=True)(graph)) == TRAINING


def test_nodes_of_a_layer_carry_its_line() -> None:
    graph = dropped().graph()
    after = Specialize(train=True)(graph)
    assert after["d.mask"].locs == after["d"].locs == graph["d"].locs != ()


def test_an_output_that_expands_to_its_operand_moves_there() -> None:
    net = gc.Net("net")
    net.output("y", gc.dropout(gc.tanh(net.input("x", (gc.N, 4)), name="h"), keep_prob=0.5))
    assert Specialize(train=False)(net.graph()).outputs["y"] == "h"


@pytest.mark.parametrize("train", [False, True])
@settings(max_examples=12, deadline=None)
@given(net=nets(without=("slope", "slope_of_all", "pool_slope")))
def test_random_nets_mean_what_their_layers_mean(train: bool, net: gc.Net) -> None:
    graph = net.graph()
    after = Specialize(train)(graph)
    verify(after)
    assert not any(isinstance(node.op, Layer) for node in after)
    feeds, state = random_feeds(graph, 3), random_state(after)
    wanted = evaluate(graph, feeds, state, 3, train=train)
    found = evaluate(after, feeds, state, 3)
    for name, value in graph.outputs.items():
        np.testing.assert_allclose(
            found[after.outputs[name]], wanted[value], rtol=1e-9, atol=1e-9, err_msg=name
        )


def test_what_is_derived_by_keeps_its_node_where_it_expands_to_its_operand() -> None:
    net = gc.Net("net")
    h = gc.tanh(net.input("x", (gc.N, 4)), name="h")
    d = gc.dropout(h, keep_prob=0.5, name="d")
    net.output("slope", gc.grad(gc.sum(h * d), d))
    after = Specialize(train=False)(net.graph())
    assert after["d"].op.name == "reshape" and after["d"].inputs == ("h",)


def test_a_part_of_a_layer_does_not_take_the_place_of_a_value_of_its_name() -> None:
    net = gc.Net("names")
    x = net.input("x", (gc.N, 3))
    noise = gc.random_normal(x, name="noise")
    net.output("y", noise * net.constant(2.0, name="noise.constant_1") + 3.0)
    ex = gc.Executor(gc.compile(net, batch=2, backend="numpy"))
    np.testing.assert_array_equal(ex.forward(x=np.ones((2, 3)))["y"], 3)  # the mean is 0


def test_a_value_of_the_name_of_a_layers_part_is_refused() -> None:
    net = gc.Net("names")
    dropped = gc.dropout(
        net.input("x", (gc.N, 3)) * net.parameter("p", ()), keep_prob=0.5, name="d"
    )
    net.loss("loss", gc.mean(gc.relu(dropped, name="d.mask")))
    with pytest.raises(gc.GraphError, match=r"the name 'd\.mask' is taken already"):
        gc.compile(net, batch=2, optimizer=gc.SGD(lr=0.1), backend="numpy")
