from __future__ import annotations

import pytest
from hypothesis import given, settings

import graphc as gc
from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import Dim
from graphc.ops.norm import BatchNormDgamma, BatchNormDx, BatchNormTrain
from graphc.ops.sums import Sum
from passes.backward import Backward
from passes.share_batchnorm_statistics import share_batchnorm_statistics
from tests.passes.same import assert_preserved, differentiated, specialized
from tests.tools.generate import nets

BEFORE = """\
bn: float32[N, 3] = batchnorm_train(x, bn.gamma, bn.beta)  eps=1e-05
d_x: float32[N, 3] = batchnorm_dx(x, bn.gamma, d_bn)  eps=1e-05
d_bn.gamma: float32[3] = batchnorm_dgamma(x, d_bn)  eps=1e-05
d_bn.beta: float32[3] = sum(d_bn)  axes=(0,)
"""

AFTER = """\
bn: float32[N, 3] = normalize(x, bn.mean, bn.var, bn.gamma, bn.beta)  eps=1e-05
d_bn.gamma: float32[3] = normalize_dgamma(x, bn.mean, bn.var, d_bn)  eps=1e-05
d_bn.beta: float32[3] = sum(d_bn)  axes=(0,)
d_x: float32[N, 3] = normalize_dx(x, bn.mean, bn.var, bn.gamma, d_bn, \
d_bn.gamma, d_bn.beta)  eps=1e-05
"""

SHOWN = ("bn: ", "d_x", "d_bn.gamma", "d_bn.beta")


def normalized(*shape: Dim, twice: bool = False) -> gc.Net:
    net = gc.Net("net")
    x = net.input("x", shape)
    h = gc.batchnorm(x, name="bn")
    if twice:
        h = h + gc.batchnorm(x, name="other")
    net.loss("loss", gc.mean(gc.tanh(h)))
    return net


def shown(graph: Graph) -> str:
    lines = str(graph).splitlines(keepends=True)
    return "".join(line for line in lines if line.startswith(SHOWN))


def gradients_of_inputs(net: gc.Net, *wrt: str) -> Graph:
    return Backward(("loss",), wrt)(specialized(net))


def kinds(graph: Graph) -> set[type]:
    return {type(node.op) for node in graph}


def test_golden() -> None:
    graph = gradients_of_inputs(normalized(gc.N, 3), "x", "bn.gamma", "bn.beta")
    assert shown(graph) == BEFORE
    assert shown(share_batchnorm_statistics(graph)) == AFTER


def test_sums_that_nobody_asked_for_are_made() -> None:
    graph = gradients_of_inputs(normalized(gc.N, 3), "x")
    after = assert_preserved(share_batchnorm_statistics, graph, 4)
    assert after["d_x"].inputs[-2:] == ("d_x.dgamma", "d_x.dbeta")


def test_without_statistics_it_stays() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3))
    gamma, beta = net.parameter("gamma", (3,)), net.parameter("beta", (3,))
    net.loss("loss", gc.mean(gc.apply(BatchNormTrain(1e-5), x, gamma, beta)))
    graph = differentiated(net)
    assert share_batchnorm_statistics(graph) is graph


def test_statistics_of_another_value_do_not_count() -> None:
    net = gc.Net("net")
    x, other = net.input("x", (gc.N, 3)), net.input("other", (gc.N, 3))
    mean = gc.mean(other, 0)
    gc.mean((x - mean) ** 2, 0)
    gamma, beta = net.parameter("gamma", (3,)), net.parameter("beta", (3,))
    net.output("y", gc.apply(BatchNormTrain(1e-5), x, gamma, beta))
    graph = net.graph()
    assert share_batchnorm_statistics(graph) is graph


def batchnorm_by_hand(mean_axes: tuple[int, ...], keepdims: bool) -> gc.Net:
    """batchnorm_train of x (N, 3), beside a mean and a variance over some axes of x."""
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3))
    mean = gc.mean(x, mean_axes, keepdims=keepdims)
    spread = gc.reshape(mean, (gc.N, 1)) if mean_axes == (1,) else mean
    net.output("var", gc.mean((x - spread) ** 2, mean_axes, keepdims=keepdims))
    gamma, beta = net.parameter("gamma", (3,)), net.parameter("beta", (3,))
    net.output("y", gc.apply(BatchNormTrain(1e-5), x, gamma, beta, name="y"))
    return net


def test_only_statistics_of_the_features_count() -> None:
    for axes, keepdims in (((1,), False), ((0,), True)):
        graph = batchnorm_by_hand(axes, keepdims).graph()
        assert share_batchnorm_statistics(graph) is graph
    graph = batchnorm_by_hand((0,), False).graph()
    made = share_batchnorm_statistics(graph)
    assert made["y"].inputs == ("x", "mean_1", "mean_2", "gamma", "beta")


def test_a_sum_is_made_once_for_two_layers_with_one_cotangent() -> None:
    graph = gradients_of_inputs(normalized(gc.N, 3, twice=True), "x")
    after = assert_preserved(share_batchnorm_statistics, graph, 5)
    sums = [node.name for node in after if node.op.name == "sum" and node.type.rank == 1]
    assert len(sums) == 1
    readers = [node for node in after if node.op.name == "normalize_dx"]
    assert [node.inputs[-1] for node in readers] == sums * 2


def test_sums_over_other_axes_are_no_gradient_of_beta() -> None:
    graph = gradients_of_inputs(normalized(gc.N, 3), "x")
    d_bn = graph["d_x"].inputs[-1]
    place = list(graph.nodes).index(d_bn) + 1
    nodes = list(graph)
    ops = Sum((1,)), Sum((0,), True)
    for number, op in enumerate(ops):
        node = Node(f"sum{number}", op, (d_bn,), op.infer([graph[d_bn].type]))
        nodes.insert(place, node)
    after = share_batchnorm_statistics(graph.with_nodes(nodes))
    assert after["d_x"].inputs[-1] == "d_x.dbeta"


def test_two_layers_on_one_value_share_its_statistics() -> None:
    graph = gradients_of_inputs(normalized(gc.N, 3, twice=True), "x", "bn.gamma", "other.gamma")
    after = assert_preserved(share_batchnorm_statistics, graph, 5)
    assert kinds(after).isdisjoint({BatchNormTrain, BatchNormDx, BatchNormDgamma})
    assert after["other"].inputs[1:3] == ("bn.mean", "bn.var")


def test_layers_with_another_epsilon_have_gradients_of_their_own() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3))
    h = gc.batchnorm(x, name="bn", eps=1e-5) + gc.batchnorm(x, name="other", eps=0.5)
    net.loss("loss", gc.mean(gc.tanh(h)))
    for wrt in (("x", "bn.gamma", "other.gamma"), ("x",), ("x", "other.gamma")):
        assert_preserved(share_batchnorm_statistics, gradients_of_inputs(net, *wrt), 5)


@pytest.mark.parametrize("exponent", [1, 3, 4])
def test_other_moments_are_no_variance(exponent: int) -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3))
    moment = gc.mean(gc.power(x - gc.mean(x, 0), exponent), 0)
    h = gc.batchnorm(x, name="bn") + moment
    net.loss("loss", gc.mean(gc.tanh(h)))
    graph = gradients_of_inputs(net, "x", "bn.gamma")
    assert_preserved(share_batchnorm_statistics, graph, 5)


def test_images() -> None:
    graph = gradients_of_inputs(normalized(gc.N, 3, 2, 2), "x", "bn.gamma", "bn.beta")
    after = assert_preserved(share_batchnorm_statistics, graph, 2)
    assert kinds(after).isdisjoint({BatchNormTrain, BatchNormDx, BatchNormDgamma})


@settings(max_examples=12, deadline=None)
@given(net=nets())
def test_random_graphs_keep_their_results(net: gc.Net) -> None:
    after = assert_preserved(share_batchnorm_statistics, differentiated(net), 3)
    assert kinds(after).isdisjoint({BatchNormTrain, BatchNormDx, BatchNormDgamma})
    assert share_batchnorm_statistics(after) is after
