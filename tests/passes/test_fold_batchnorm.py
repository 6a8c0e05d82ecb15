from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

import graphc as gc
from graphc.ir.graph import Graph
from graphc.ops.conv import Conv
from graphc.ops.elementwise import Add
from graphc.ops.linalg import MatMul
from graphc.ops.norm import Normalize
from graphc.ops.source import Constant
from passes.channels_last import channels_last
from passes.dead_code import dead_code
from passes.fold_batchnorm import fold_batchnorm
from passes.fold_constants import fold_constants
from tests.passes.same import assert_preserved, frozen, specialized
from tests.tools.generate import nets

BEFORE = """\
graph net
x: float32[N, 1] = input()
a.weight: float32[1, 2] = constant()  data=[2.0, 4.0]
a.bias: float32[2] = constant()  data=[1.0, 3.0]
a: float32[N, 2] = affine(x, a.weight, a.bias)
bn.gamma: float32[2] = constant()  data=[1.0, 0.5]
bn.beta: float32[2] = constant()  data=[10.0, 20.0]
bn.running_mean: float32[2] = constant()  data=[0.0, 2.0]
bn.running_var: float32[2] = constant()  data=[3.0, 0.0]
bn: float32[N, 2] = normalize(a, bn.running_mean, bn.running_var, bn.gamma, bn.beta)  eps=1.0
output y = bn
"""

AFTER = """\
graph net
x: float32[N, 1] = input()
bn.folded_weight: float32[1, 2] = constant()  data=[1.0, 2.0] label="bn.folded_weight"
bn.folded_bias: float32[2] = constant()  data=[10.5, 20.5] label="bn.folded_bias"
bn: float32[N, 2] = affine(x, bn.folded_weight, bn.folded_bias)
output y = bn
"""

VALUES = {
    "a.weight": [[2, 4]],
    "a.bias": [1, 3],
    "bn.gamma": [1, 0.5],
    "bn.beta": [10, 20],
    "bn.running_mean": [0, 2],
    "bn.running_var": [3, 0],
}


def declared(second_reader: bool = False, output: bool = False, bias: bool = True) -> gc.Net:
    net = gc.Net("net")
    a = gc.affine(net.input("x", (gc.N, 1)), 2, name="a", bias=bias)
    h = gc.batchnorm(a, eps=1.0, name="bn")
    net.output("y", h + a if second_reader else h)
    if output:
        net.output("a", a)
    return net


def with_values(graph: Graph) -> Graph:
    changed: dict[str, gc.Node | None] = {}
    for name, value in VALUES.items():
        data = np.array(value, np.float32)
        op = Constant(data.shape, "float32", data.tobytes())
        changed[name] = gc.Node(name, op, (), graph[name].type)
    return graph.replace(changed)


def normalizes(graph: Graph) -> int:
    return sum(isinstance(node.op, Normalize) for node in graph)


def test_golden() -> None:
    graph = with_values(frozen(declared()))
    assert str(graph) == BEFORE
    assert str(dead_code(fold_batchnorm(graph))) == AFTER


def test_weights_that_still_change_are_not_folded() -> None:
    graph = specialized(declared(), train=False)
    assert fold_batchnorm(graph) is graph


def test_one_changing_operand_is_enough_to_refuse() -> None:
    net = declared()
    graph, live = frozen(net), specialized(net, train=False)
    for name in ("bn.running_mean", "bn.running_var", "bn.gamma", "bn.beta", "a.weight", "a.bias"):
        mixed = graph.replace({name: live[name]})
        assert fold_batchnorm(mixed) is mixed


def test_a_second_reader_or_an_output_prevents_it() -> None:
    for net in (declared(second_reader=True), declared(output=True)):
        graph = frozen(net)
        assert fold_batchnorm(graph) is graph


def test_a_product_without_bias_becomes_an_affine_map() -> None:
    after = assert_preserved(fold_batchnorm, frozen(declared(bias=False)), 3)
    assert after["bn"].op.name == "affine"


@pytest.mark.parametrize("transposed", [True, False])
def test_only_plain_products_of_matrices_are_folded(transposed: bool) -> None:
    net = gc.Net("net")
    if transposed:
        a = gc.apply(MatMul(False, True), net.input("x", (gc.N, 3)), net.parameter("w", (3, 3)))
    else:
        a = gc.matmul(net.input("x", (gc.N, 3, 2)), net.parameter("w", (2, 4)))
    net.output("y", gc.batchnorm(a, name="bn"))
    graph = frozen(net)
    assert fold_batchnorm(graph) is graph


def test_names_of_folded_constants_that_are_taken() -> None:
    net = declared()
    for name in ("bn.folded_weight", "bn.folded_weight_", "bn.folded_bias"):
        net.output(name, net.constant([1.0], name=name))
    after = assert_preserved(fold_batchnorm, frozen(net), 3)
    assert after["bn"].inputs == ("x", "bn.folded_weight__", "bn.folded_bias_")


def test_a_shared_weight_is_folded_for_one_reader_and_stays_for_the_other() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3))
    a = gc.affine(x, 3, name="a")
    h = gc.batchnorm(a, name="bn")
    net.output("y", gc.affine(h, weight=net["a.weight"], bias=net["a.bias"]))
    after = dead_code(assert_preserved(fold_batchnorm, frozen(net), 3))
    assert normalizes(after) == 0
    assert "a.weight" in after


def of_images(bias: bool = True, stride: int = 1) -> gc.Net:
    net = gc.Net("images", dtype="float64")
    x = net.input("x", (gc.N, 2, 4, 3))
    h = gc.conv2d(x, 4, 2, stride, padding=1, groups=2, bias=bias, name="c")
    net.output("y", gc.relu(gc.batchnorm(h, name="bn")))
    return net


def simplified(graph: Graph) -> Graph:
    """As images are once nothing stands between a convolution and the batchnorm behind it."""
    return dead_code(fold_constants(channels_last(graph)))


@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_does_the_batchnorm_behind_it(bias: bool) -> None:
    graph = simplified(frozen(of_images(bias)))
    after = dead_code(assert_preserved(fold_batchnorm, graph, 3))
    assert normalizes(graph) == 1
    assert normalizes(after) == 0
    (conv,) = (node for node in after if isinstance(node.op, Conv))
    assert conv.inputs[1] == "bn.rows.folded_weight"
    assert after["bn.rows"].op == Add()
    assert after["bn.rows"].inputs[1] == "bn.rows.folded_bias"


def test_a_convolution_that_another_reads_or_whose_weight_changes_is_left() -> None:
    net = of_images()
    net.output("c", net["c"])
    graph = simplified(frozen(net))
    assert fold_batchnorm(graph) is graph
    live = simplified(specialized(of_images(), train=False))
    assert fold_batchnorm(live) is live


@settings(max_examples=12, deadline=None)
@given(net=nets())
def test_random_graphs_keep_their_results(net: gc.Net) -> None:
    after = assert_preserved(fold_batchnorm, frozen(net), 3)
    assert normalizes(after) <= normalizes(frozen(net))
