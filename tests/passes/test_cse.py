from __future__ import annotations

from hypothesis import given, settings

import graphc as gc
from graphc.ir.graph import Graph
from graphc.ops.dropout import DropoutMask
from graphc.ops.select import Clip
from passes.cse import cse
from tests.passes.same import assert_preserved, differentiated, specialized
from tests.tools.generate import nets

BEFORE = """\
graph twice
x: float32[N, 2] = input()
exp_1: float32[N, 2] = exp(x)
constant_1: float32[] = constant()  data=[0.5]
mul_1: float32[N, 2] = mul(exp_1, constant_1)
exp_2: float32[N, 2] = exp(x)
constant_2: float32[] = constant()  data=[0.5]
mul_2: float32[N, 2] = mul(exp_2, constant_2)
y: float32[N, 2] = add(mul_1, mul_2)
output y = y
output half = mul_2
"""

AFTER = """\
graph twice
x: float32[N, 2] = input()
exp_1: float32[N, 2] = exp(x)
constant_1: float32[] = constant()  data=[0.5]
mul_1: float32[N, 2] = mul(exp_1, constant_1)
y: float32[N, 2] = add(mul_1, mul_1)
output y = y
output half = mul_1
"""


def twice() -> Graph:
    net = gc.Net("twice")
    x = net.input("x", (gc.N, 2))
    first = gc.exp(x) * 0.5
    second = gc.exp(x) * 0.5
    net.output("y", gc.add(first, second, name="y"))
    net.output("half", second)
    return net.graph()


def test_golden() -> None:
    graph = twice()
    assert str(graph) == BEFORE
    assert str(cse(graph)) == AFTER


def test_the_node_that_stays_has_the_lines_of_both() -> None:
    graph = twice()
    merged = cse(graph)["exp_1"].locs
    assert merged == (*graph["exp_1"].locs, *graph["exp_2"].locs)
    assert len({loc.line for loc in merged}) == 2


def test_parameters_inputs_and_states_are_never_merged() -> None:
    net = gc.Net("net")
    a, b = net.input("a", (gc.N, 2)), net.input("b", (gc.N, 2))
    v, w = net.parameter("v", (2, 2)), net.parameter("w", (2, 2))
    net.output("y", a @ v + b @ w)
    graph = net.graph()
    assert cse(graph) is graph


def test_other_attributes_or_operands_are_other_nodes() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 2))
    net.output("y", gc.sum(x, 0) + gc.sum(x, 1, keepdims=True) + (x - 1) + (1 - x))
    graph = net.graph()
    merged = cse(graph)
    assert len(merged) == len(graph) - 1  # the constant 1, and nothing else


def test_dropout_layers_keep_masks_of_their_own() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 2))
    net.output("y", gc.dropout(x, keep_prob=0.5) + gc.dropout(x, keep_prob=0.5))
    graph = cse(specialized(net))
    assert sum(isinstance(node.op, DropoutMask) for node in graph) == 2


def test_the_signs_of_zeros_are_kept_apart() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 2))
    net.output("y", gc.apply(Clip(0.0, 1.0), x) + gc.apply(Clip(-0.0, 1.0), x))
    graph = net.graph()
    assert cse(graph) is graph


@settings(max_examples=12, deadline=None)
@given(net=nets())
def test_random_graphs_keep_every_bit(net: gc.Net) -> None:
    after = assert_preserved(cse, specialized(net), 3)
    assert cse(after) is after
    assert_preserved(cse, differentiated(net), 2)
