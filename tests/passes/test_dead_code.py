from __future__ import annotations

from hypothesis import given, settings

import graphc as gc
from graphc.ir.step_graph import nested
from passes.dead_code import dead_code
from tests.passes.same import assert_preserved, differentiated, specialized
from tests.tools.generate import nets

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


def test_what_only_an_unread_result_of_a_loop_inside_needs_goes() -> None:
    """The operand of the loop around goes with it, and the node that makes that."""
    net = gc.Net("net")
    x, h0 = net.input("x", (gc.N, 3, 2)), net.input("h0", (gc.N, 2))
    unread = gc.exp(net.input("g0", (gc.N, 2)), name="unread")

    def step(x: gc.Value, h: gc.Value, g: gc.Value) -> tuple[gc.Value, tuple[gc.Value, gc.Value]]:
        inside, _ = gc.scan(lambda a, b: (a, gc.tanh(b)), gc.reshape(h, (gc.N, 2, 1)), g)
        return gc.reshape(inside, (gc.N, 2)) + x, (gc.tanh(h + x), gc.sigmoid(g))

    ys, _ = gc.scan(step, x, (h0, unread))
    net.output("ys", ys)
    graph = dead_code(net.graph())
    assert not {"g0", "unread"} & set(graph.nodes)
    assert [node.op.name for node in nested(graph)].count("tanh") == 1
    assert dead_code(graph) is graph


def test_a_carried_value_that_is_handed_on_unread_stays() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3, 2))
    _, last = gc.scan(lambda a, h: (a, gc.tanh(a)), x, net.input("h0", (gc.N, 2)))
    net.output("last", last)
    graph = dead_code(net.graph())
    assert "h0" in graph
    assert dead_code(graph) is graph
