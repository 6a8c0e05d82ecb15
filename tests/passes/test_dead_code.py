from __future__ import annotations

from hypothesis import given, settings

import graphc as gc
from passes.dead_code import dead_code
from tests.generate import nets
from tests.passes.same import assert_preserved, differentiated, specialized

BEFORE = """\
graph net
x: float32[N, 2] = input()
unused: float32[N, 2] = input()
exp_1: float32[N, 2] = exp(x)
log_1: float32[N, 2] = log(exp_1)
y: float32[N, 2] = tanh(x)
output y = y
"""

AFTER = """\
graph net
x: float32[N, 2] = input()
y: float32[N, 2] = tanh(x)
output y = y
"""


def test_golden() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 2))
    net.input("unused", (gc.N, 2))
    gc.log(gc.exp(x))
    net.output("y", gc.tanh(x, name="y"))
    assert str(net.graph()) == BEFORE
    assert str(dead_code(net.graph())) == AFTER


def test_what_updates_and_gradients_read_stays() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 2))
    net.loss("loss", gc.mean(gc.batchnorm(x)))
    graph = dead_code(differentiated(net))
    assert {"batchnorm_1.running_mean.next", "batchnorm_1.running_var", "draws"} <= set(graph.nodes)
    assert set(graph.gradients.values()) <= set(graph.nodes)


def test_a_graph_without_dead_code_is_the_same_object() -> None:
    net = gc.Net("net")
    net.output("y", gc.tanh(net.input("x", (gc.N, 2))))
    graph = net.graph()
    assert dead_code(graph) is graph


@settings(max_examples=12, deadline=None)
@given(net=nets())
def test_random_graphs_keep_every_bit(net: gc.Net) -> None:
    after = assert_preserved(dead_code, specialized(net), 3)
    assert set(after.nodes) == after.upstream([*after.roots, *after.updates])
