from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

import graphc as gc
from graphc.ir.graph import Graph
from graphc.ops.fused import AffineRelu, MatMulReluGrad
from passes.dead_code import dead_code
from passes.fuse_affine_relu import fuse_affine_relu
from tests.passes.same import assert_preserved, differentiated, frozen, specialized
from tests.tools.generate import nets

BEFORE = """\
graph net
x: float32[N, 4] = input()
w1: float32[4, 3] = parameter()  init=He()
b1: float32[3] = parameter()  init=Constant(value=0.0)
a: float32[N, 3] = affine(x, w1, b1)
h: float32[N, 3] = relu(a)
w2: float32[3, 2] = parameter()  init=He()
b2: float32[2] = parameter()  init=Constant(value=0.0)
s: float32[N, 2] = affine(h, w2, b2)
loss: float32[] = mean(s)  axes=(0, 1)
d_loss: float32[] = constant()  data=[1.0]
d_loss.reshape_1: float32[1, 1] = reshape(d_loss)
d_s: float32[N, 2] = mean_grad(d_loss.reshape_1)  axes=(0, 1)
d_h: float32[N, 3] = matmul(d_s, w2)  trans_b=True
d_w2: float32[3, 2] = matmul(h, d_s)  trans_a=True
d_b2: float32[2] = sum(d_s)  axes=(0,)
d_a: float32[N, 3] = relu_grad(h, d_h)
d_w1: float32[4, 3] = matmul(x, d_a)  trans_a=True
d_b1: float32[3] = sum(d_a)  axes=(0,)
output loss = loss
losses loss
gradient w1 = d_w1
gradient b1 = d_b1
gradient w2 = d_w2
gradient b2 = d_b2
"""

AFTER = """\
graph net
x: float32[N, 4] = input()
w1: float32[4, 3] = parameter()  init=He()
b1: float32[3] = parameter()  init=Constant(value=0.0)
h: float32[N, 3] = affine_relu(x, w1, b1)
w2: float32[3, 2] = parameter()  init=He()
b2: float32[2] = parameter()  init=Constant(value=0.0)
s: float32[N, 2] = affine(h, w2, b2)
loss: float32[] = mean(s)  axes=(0, 1)
d_loss: float32[] = constant()  data=[1.0]
d_loss.reshape_1: float32[1, 1] = reshape(d_loss)
d_s: float32[N, 2] = mean_grad(d_loss.reshape_1)  axes=(0, 1)
d_w2: float32[3, 2] = matmul(h, d_s)  trans_a=True
d_b2: float32[2] = sum(d_s)  axes=(0,)
d_a: float32[N, 3] = matmul_relu_grad(d_s, w2, h)  trans_b=True
d_w1: float32[4, 3] = matmul(x, d_a)  trans_a=True
d_b1: float32[3] = sum(d_a)  axes=(0,)
output loss = loss
losses loss
gradient w1 = d_w1
gradient b1 = d_b1
gradient w2 = d_w2
gradient b2 = d_b2
"""


def two_layers(extra: str = "") -> Graph:
    """x -> affine a -> relu h -> affine s -> mean; `extra` names a node that is an output, too."""
    net = gc.Net("net")
    x = net.input("x", (gc.N, 4))
    w1, b1 = net.parameter("w1", (4, 3)), net.parameter("b1", (3,), init=0)
    h = gc.relu(gc.affine(x, weight=w1, bias=b1, name="a"), name="h")
    w2, b2 = net.parameter("w2", (3, 2)), net.parameter("b2", (2,), init=0)
    s = gc.affine(h, weight=w2, bias=b2, name="s")
    net.loss("loss", gc.mean(s, name="loss"))
    graph = differentiated(net)
    outputs = {**graph.outputs, "extra": extra} if extra else graph.outputs
    roots = {"losses": graph.losses, "gradients": graph.gradients}
    return dead_code(Graph(graph.name, graph, outputs=outputs, **roots))


def kinds(graph: Graph) -> list[str]:
    return [node.op.name for node in graph]


def test_golden() -> None:
    graph = two_layers()
    assert str(graph) == BEFORE
    assert str(fuse_affine_relu(graph)) == AFTER


def test_the_fused_node_has_the_lines_of_both() -> None:
    graph = two_layers()
    fused = fuse_affine_relu(graph)
    assert fused["h"].locs == tuple(dict.fromkeys((*graph["a"].locs, *graph["h"].locs)))
    assert fused["h"].locs


@pytest.mark.parametrize(("extra", "kept"), [("a", "relu"), ("d_h", "relu_grad")])
def test_a_node_that_is_an_output_is_not_fused_away(extra: str, kept: str) -> None:
    after = fuse_affine_relu(two_layers(extra))
    assert kept in kinds(after)
    assert extra in after


def test_a_second_reader_prevents_it() -> None:
    net = gc.Net("net")
    a = gc.affine(net.input("x", (gc.N, 2)), 3)
    net.output("y", gc.relu(a) + a)
    graph = specialized(net, train=False)
    assert fuse_affine_relu(graph) is graph


def test_a_product_without_bias_has_no_fused_form() -> None:
    net = gc.Net("net")
    a = net.input("a", (gc.N, 2))
    net.output("y", gc.relu(gc.matmul(a, net.parameter("w", (2, 2)))))
    graph = specialized(net, train=False)
    assert fuse_affine_relu(graph) is graph


def test_fused_ops_are_not_differentiated() -> None:
    net = gc.Net("net")
    x, w, b = net.input("x", (gc.N, 2)), net.parameter("w", (2, 3)), net.parameter("b", (3,))
    y = gc.apply(AffineRelu(), x, w, b, name="y")
    with pytest.raises(gc.GraphError, match="affine_relu 'y': a fused op is not differentiated"):
        net.loss("loss", gc.sum(y))
        differentiated(net)


@pytest.mark.parametrize("trans", [(False, False), (True, False), (False, True), (True, True)])
def test_the_fused_ops_say_what_the_separate_ops_say(trans: tuple[bool, bool]) -> None:
    rng = np.random.default_rng(0)
    a, b, out = (
        rng.standard_normal((3, 5)),
        rng.standard_normal((5, 2)),
        rng.standard_normal((3, 2)),
    )
    left, right = (a.T if trans[0] else a), (b.T if trans[1] else b)
    found = MatMulReluGrad(*trans).reference([left, right, out])
    np.testing.assert_allclose(found, (a @ b) * (out > 0), rtol=1e-12, atol=1e-14)
    bias = rng.standard_normal(2)
    np.testing.assert_allclose(AffineRelu().reference([a, b, bias]), np.maximum(a @ b + bias, 0))


@settings(max_examples=12, deadline=None)
@given(net=nets())
def test_random_graphs_keep_every_bit(net: gc.Net) -> None:
    assert_preserved(fuse_affine_relu, differentiated(net), 3)
    assert_preserved(fuse_affine_relu, frozen(net), 1)
