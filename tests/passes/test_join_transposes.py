from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings

import graphc as gc
from graphc.ir.graph import Graph
from graphc.ops.shape import Transpose
from passes.dead_code import dead_code
from passes.fold_constants import fold_constants
from passes.join_transposes import join_transposes
from tests.passes.same import assert_preserved, differentiated
from tests.tools.generate import nets

N = gc.N

BEFORE = """\
graph net
x: float32[N, 5, 4] = input()
w: float32[4, 2] = constant()  data=[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
t: float32[5, N, 4] = transpose(x)  axes=(1, 0, 2)
m: float32[5, N, 2] = matmul(t, w)
a: float32[5, N, 2] = exp(m)
b: float32[N, 5, 2] = transpose(a)  axes=(1, 0, 2)
y: float32[N, 5, 2] = tanh(b)
output y = y
"""

AFTER = """\
graph net
x: float32[N, 5, 4] = input()
w: float32[4, 2] = constant()  data=[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
m.matmul_1: float32[N, 5, 2] = matmul(x, w)
a.exp_1: float32[N, 5, 2] = exp(m.matmul_1)
y: float32[N, 5, 2] = tanh(a.exp_1)
output y = y
"""


def test_golden() -> None:
    net = gc.Net("net")
    x = net.input("x", (N, 5, 4))
    w = net.constant(np.arange(8, dtype=np.float32).reshape(4, 2), name="w")
    m = gc.matmul(gc.transpose(x, (1, 0, 2), name="t"), w, name="m")
    b = gc.transpose(gc.exp(m, name="a"), (1, 0, 2), name="b")
    net.output("y", gc.tanh(b, name="y"))
    assert str(net.graph()) == BEFORE
    assert str(join_transposes(net.graph())) == AFTER


def transposes(graph: Graph) -> list[tuple[int, ...]]:
    return [node.op.axes for node in graph if isinstance(node.op, Transpose)]


Make = Callable[[gc.Value], gc.Value]


def steps_first(x: gc.Value) -> gc.Value:
    return gc.transpose(x, (1, 0, 2))


def weight(x: gc.Value, *shape: int) -> gc.Value:
    numbers = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    return x.builder.apply(gc.Net("w").constant(numbers).node.op)


def attention(x: gc.Value) -> gc.Value:
    """Attention of 2 heads as PyTorch exports it, with the steps before the batch."""
    rows = steps_first(x)
    mixed = gc.matmul(rows, weight(x, 4, 12)) + weight(x, 12)
    apart = gc.reshape(mixed, (1, 6, N, 3, 4))
    parts = gc.reshape(gc.transpose(apart, (3, 1, 2, 0, 4)), (3, 6, N, 4))
    heads = [gc.reshape(parts[i], (6, 2 * N, 2)) for i in range(3)]
    q, v = (gc.reshape(gc.transpose(heads[i], (1, 0, 2)), (N, 2, 6, 2)) for i in (0, 2))
    k = gc.reshape(gc.transpose(heads[1], (1, 2, 0)), (N, 2, 2, 6))
    found = gc.matmul(gc.softmax(gc.matmul(q * 0.5, k * 0.5)), v)
    joined = gc.reshape(gc.transpose(found, (2, 0, 1, 3)), (6 * N, 4))
    out = gc.reshape(gc.matmul(joined, weight(x, 4, 4)), (6, N, 4))
    return steps_first(out) + x


GONE: dict[str, Make] = {
    "bias": lambda x: steps_first(steps_first(x) + weight(x, 4)),
    "number": lambda x: steps_first(steps_first(x) * 2.0),
    "both operands": lambda x: steps_first(steps_first(x) * gc.exp(steps_first(x))),
    "slice of rows": lambda x: steps_first(steps_first(x)[1:5:2]),
    "one row": lambda x: gc.reshape(steps_first(x)[1], (N, 4)),
    "rows of a matrix": lambda x: steps_first(
        gc.reshape(gc.matmul(gc.reshape(steps_first(x), (6 * N, 4)), weight(x, 4, 3)), (6, N, 3))
    ),
    "cut axis": lambda x: gc.transpose(
        gc.reshape(steps_first(x), (3, 2, N, 2, 2)), (2, 0, 1, 3, 4)
    ),
}
KEPT: dict[str, Make] = {
    "alone": steps_first,
    "other operand": lambda x: gc.transpose(gc.reshape(x, (N, 4, 6)), (0, 2, 1)) + x,
    "rows are mixed": lambda x: gc.reshape(steps_first(x), (N, 6, 4)) * 2.0,
    "the columns move": lambda x: gc.matmul(gc.transpose(x, (0, 2, 1)), weight(x, 6, 2)),
    "steps are summed up": lambda x: gc.cumsum(steps_first(x), axis=0),
}


def graph_of(make: Make) -> Graph:
    net = gc.Net("net")
    net.output("y", make(net.input("x", (N, 6, 4))))
    return net.graph()


@pytest.mark.parametrize("make", GONE.values(), ids=GONE)
def test_transposes_that_undo_each_other_vanish(make: Make) -> None:
    after = assert_preserved(join_transposes, graph_of(make), 3)
    assert not transposes(after)


@pytest.mark.parametrize("make", KEPT.values(), ids=KEPT)
def test_a_graph_in_which_nothing_vanishes_stays(make: Make) -> None:
    graph = graph_of(make)
    assert join_transposes(graph) is graph


def test_attention_is_left_with_the_transposes_that_stacks_of_products_read() -> None:
    after = assert_preserved(join_transposes, graph_of(attention), 3)
    assert sorted(transposes(after)) == [(0, 2, 1, 3)] * 3 + [(0, 2, 3, 1)]
    net = gc.Net("net")
    net.output("y", attention(net.input("x", (N, 6, 4))))
    program = gc.compile(net, batch=3).programs["infer"]
    assert "transpose" not in {instr.kernel for instr in program.instrs}


def test_new_nodes_do_not_take_the_names_of_others() -> None:
    net = gc.Net("net")
    x = net.input("x", (N, 6, 4))
    moved = gc.exp(steps_first(x), name="a")
    y = gc.tanh(steps_first(moved))
    net.output("z", gc.cumsum(y, axis=1, name="a.exp_1"))
    after = assert_preserved(join_transposes, net.graph(), 3)
    assert {"a.exp_1", "a.first.exp_1"} <= set(after.nodes)


@settings(max_examples=25, deadline=None)
@given(nets())
def test_random_nets_keep_their_results(net: gc.Net) -> None:
    graph = dead_code(fold_constants(differentiated(net)))
    assert_preserved(join_transposes, graph, 3)
