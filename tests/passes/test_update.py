from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import graphc as gc
from graphc.declare.optim import Optimizer
from graphc.ir.graph import Graph
from graphc.ir.text import parse_graph
from graphc.ir.verify import verify
from graphc.ops import OPS
from graphc.runtime.reference import evaluate, initial_state, next_state
from passes.backward import Backward
from passes.specialize import Specialize
from passes.update import Update, apply_graph
from tests.tools.generate import nets, random_feeds, random_state

FORWARD_AND_BACKWARD = """\
graph net
x: float32[4, 2] = input()
w: float32[2, 3] = parameter()  init=Zeros()
b: float32[3] = parameter()  init=Zeros()
matmul_1: float32[4, 3] = matmul(x, w)
add_1: float32[4, 3] = add(matmul_1, b)
sum_1: float32[] = sum(add_1)  axes=(0, 1)
d_sum_1: float32[] = constant()  data=[1.0]
d_sum_1.reshape_1: float32[1, 1] = reshape(d_sum_1)
d_add_1: float32[4, 3] = broadcast_to(d_sum_1.reshape_1)
d_add_1.sum_1: float32[1, 3] = sum(d_add_1)  axes=(0,) keepdims=True
d_b: float32[3] = reshape(d_add_1.sum_1)
d_x: float32[4, 2] = matmul(d_add_1, w)  trans_b=True
d_w: float32[2, 3] = matmul(x, d_add_1)  trans_a=True
"""

BEFORE = f"""\
{FORWARD_AND_BACKWARD}\
output loss = sum_1
losses loss
gradient w = d_w
gradient b = d_b
gradient x = d_x
"""

MOMENTUM = f"""\
{FORWARD_AND_BACKWARD}\
updates: int64[] = state()  start=0.0
hyper.lr: float32[] = state()  start=0.5
warm_up_rate_1: float32[] = warm_up_rate(hyper.lr, updates)  steps=5 start=0
cosine_rate_1: float32[] = cosine_rate(warm_up_rate_1, updates)  total=10 floor=0.0 start=5
hyper.clip_norm: float32[] = state()  start=1.0
w.square_sum: float64[] = square_sum(d_w)
b.square_sum: float64[] = square_sum(d_b)
square_sum.total: float64[] = add(w.square_sum, b.square_sum)
clip_scale: float32[] = clip_scale(square_sum.total, hyper.clip_norm)
w.clipped: float32[2, 3] = mul(d_w, clip_scale)
b.clipped: float32[3] = mul(d_b, clip_scale)
hyper.weight_decay: float32[] = state()  start=0.01
w.velocity: float32[2, 3] = state()  start=0.0
w.velocity.next: float32[2, 3] = momentum(w.velocity, w.clipped, w, hyper.weight_decay)  mu=0.9
w.next: float32[2, 3] = sgd_step(w, w.velocity.next, cosine_rate_1)
b.velocity: float32[3] = state()  start=0.0
b.velocity.next: float32[3] = momentum(b.velocity, b.clipped)  mu=0.9
b.next: float32[3] = sgd_step(b, b.velocity.next, cosine_rate_1)
constant_1: int64[] = constant()  data=[1]
updates.next: int64[] = add(updates, constant_1)
output loss = sum_1
losses loss
update w.velocity = w.velocity.next
update w = w.next
update b.velocity = b.velocity.next
update b = b.next
update updates = updates.next
"""

ACCUMULATE = f"""\
{FORWARD_AND_BACKWARD}\
w.accumulated: float32[2, 3] = state()  start=0.0
w.accumulated.next: float32[2, 3] = add(w.accumulated, d_w)
b.accumulated: float32[3] = state()  start=0.0
b.accumulated.next: float32[3] = add(b.accumulated, d_b)
accumulated: int64[] = state()  start=0.0
constant_1: int64[] = constant()  data=[1]
accumulated.next: int64[] = add(accumulated, constant_1)
output loss = sum_1
losses loss
update w.accumulated = w.accumulated.next
update b.accumulated = b.accumulated.next
update accumulated = accumulated.next
"""

APPLY_FED = """\
graph apply
w: float32[2, 3] = parameter()  init=Zeros()
"gradient:w": float32[2, 3] = input()
updates: int64[] = state()  start=0.0
hyper.lr: float32[] = state()  start=0.5
w.next: float32[2, 3] = sgd_step(w, "gradient:w", hyper.lr)
constant_1: int64[] = constant()  data=[1]
updates.next: int64[] = add(updates, constant_1)
update w = w.next
update updates = updates.next
"""

APPLY_ACCUMULATED = """\
graph apply
w: float32[2, 3] = parameter()  init=Zeros()
accumulated: int64[] = state()  start=0.0
cast_1: float32[] = cast(accumulated)
w.accumulated: float32[2, 3] = state()  start=0.0
w.gradient: float32[2, 3] = div(w.accumulated, cast_1)
updates: int64[] = state()  start=0.0
hyper.lr: float32[] = state()  start=0.5
w.mean: float32[2, 3] = state()  start=0.0
w.square: float32[2, 3] = state()  start=0.0
w.mean.next: float32[2, 3] = adam_mean(w.mean, w.gradient)  beta1=0.9
w.square.next: float32[2, 3] = adam_square(w.square, w.gradient)  beta2=0.999
hyper.weight_decay: float32[] = state()  start=0.01
w.next: float32[2, 3] = adam_step(w, w.mean.next, w.square.next, hyper.lr, updates, \
hyper.weight_decay)  beta1=0.9 beta2=0.999 eps=1e-08
constant_1: int64[] = constant()  data=[1]
updates.next: int64[] = add(updates, constant_1)
w.accumulated.next: float32[2, 3] = cleared(w.accumulated)
accumulated.next: int64[] = cleared(accumulated)
update w.mean = w.mean.next
update w.square = w.square.next
update w = w.next
update updates = updates.next
update w.accumulated = w.accumulated.next
update accumulated = accumulated.next
"""


def differentiated(net: gc.Net, *wrt: str) -> Graph:
    graph = Specialize(train=False)(net.graph())
    return Backward(graph.losses, wrt)(graph)


def small() -> Graph:
    net = gc.Net("net")
    x = net.input("x", (4, 2))
    w = net.parameter("w", (2, 3), "zeros")
    b = net.parameter("b", (3,), "zeros")
    net.loss("loss", gc.sum(gc.add(gc.matmul(x, w), b)))
    return differentiated(net, "w", "b", "x")


def test_golden() -> None:
    graph = small()
    assert str(graph) == BEFORE
    schedule = gc.WarmUp(5, then=gc.Cosine(10))
    optimizer = gc.SGD(0.5, 0.9, weight_decay=0.01, clip_norm=1.0, schedule=schedule)
    after = Update(optimizer)(graph)
    verify(after)
    assert str(after) == MOMENTUM
    assert str(Update(gc.SGD(0.1, accumulate=2))(graph)) == ACCUMULATE


def test_golden_apply() -> None:
    w = small()["w"]
    assert str(apply_graph([w], gc.SGD(0.5, weight_decay=0.0))) == APPLY_FED
    accumulating = apply_graph([w], gc.AdamW(0.5, accumulate=4))
    verify(accumulating)
    assert str(accumulating) == APPLY_ACCUMULATED


def test_the_text_reads_back() -> None:
    for text in (MOMENTUM, ACCUMULATE, APPLY_ACCUMULATED):
        assert str(parse_graph(text, OPS)) == text


def test_update_nodes_carry_the_lines_of_their_parameter() -> None:
    graph = Update(gc.SGD(0.1, 0.9))(small())
    for name in ("w", "b"):
        for node in (f"{name}.velocity", f"{name}.velocity.next", f"{name}.next"):
            assert graph[node].locs == graph[name].locs != ()
    assert graph["updates.next"].locs == ()


@pytest.mark.parametrize("step", [Update(gc.SGD(0.1)), Update(gc.SGD(0.1, accumulate=2))])
def test_without_a_parameter_s_gradient_nothing_changes(step: Any) -> None:
    net = gc.Net("net")
    x = net.input("x", (4, 2))
    net.loss("loss", gc.sum(gc.matmul(x, net.parameter("w", (2, 3)))))
    graph = differentiated(net, "x")
    assert step(graph) is graph


def test_parameters_outside_wrt_are_left_alone() -> None:
    net = gc.Net("net")
    x = net.input("x", (4, 2))
    w, b = net.parameter("w", (2, 3)), net.parameter("b", (3,))
    net.loss("loss", gc.sum(gc.add(gc.matmul(x, w), b)))
    graph = Update(gc.AdamW(weight_decay=0.5))(differentiated(net, "b"))
    assert set(graph.updates) == {"b", "b.mean", "b.square", "updates"}
    assert "w.mean" not in graph


def test_other_updates_stay() -> None:
    net = gc.Net("net")
    h = gc.batchnorm(gc.affine(net.input("x", (gc.N, 3)), 2))
    net.loss("loss", gc.mean(gc.power(h, 2)))
    graph = Specialize(train=True)(net.graph())
    before = dict(graph.updates)
    after = Update(gc.SGD(0.1))(Backward(("loss",), ("affine_1.weight",))(graph))
    assert before.items() <= after.updates.items()
    assert after.gradients == {}


def test_parameters_of_two_dtypes() -> None:
    net = gc.Net("net")
    x = net.input("x", (4, 2))
    w = net.parameter("w", (2, 3))
    s = net.parameter("s", (), 1.0, dtype="float64")
    net.loss("loss", gc.sum(gc.matmul(x, w)) * gc.cast(s, "float32"))
    graph = Update(gc.SGD(0.5, 0.9, clip_norm=1.0))(differentiated(net, "w", "s"))
    verify(graph)
    feeds, state = random_feeds(graph, 1), initial_state(graph, 0)
    after = next_state(graph, evaluate(graph, feeds, state, 1), state)
    change = [np.sum(np.square(after[k].astype("f8") - state[k])) for k in ("w", "s")]
    assert np.sqrt(sum(change)) == pytest.approx(0.5, rel=1e-5)
    assert after["s"].dtype == np.float64


def test_a_name_that_the_optimizer_needs() -> None:
    net = gc.Net("net")
    w = net.parameter("w", (3,))
    net.loss("loss", gc.sum(gc.exp(w, name="w.velocity")))
    with pytest.raises(gc.GraphError) as caught:
        Update(gc.SGD(0.1, 0.9))(differentiated(net, "w"))
    assert caught.value.sentence == "the name 'w.velocity' is taken already, by exp"
    assert caught.value.hint == "the optimizer keeps the velocity of parameter 'w' under it"
    assert caught.value.loc is not None
    assert caught.value.loc.file == __file__


def test_a_taken_name_that_nobody_needs() -> None:
    net = gc.Net("net")
    w = net.parameter("w", (3,))
    net.loss("loss", gc.sum(gc.exp(w, name="w.next")))
    graph = Update(gc.SGD(0.1))(differentiated(net, "w"))
    assert graph.updates["w"] == "w.next_2"


@given(nets())
@settings(max_examples=15, deadline=None)
def test_update_is_backward_then_apply(net: gc.Net) -> None:
    """One graph that steps equals gradients taken out and fed to the graph of the update."""
    optimizer = gc.Adam(0.1, weight_decay=0.01, clip_norm=0.5, eps=1e-3)
    graph = Specialize(train=True)(net.graph())
    names = [node.name for node in graph if node.op.name == "parameter"]
    graph = Backward(graph.losses, tuple(names))(graph)
    feeds = random_feeds(graph, 3)
    step = Update(optimizer)(graph)
    state = random_state(step)
    together = next_state(step, evaluate(step, feeds, state, 3), state)
    apart = _apart(graph, optimizer, feeds, state)
    for name, array in apart.items():
        np.testing.assert_array_equal(together[name], array)


def _apart(graph: Graph, optimizer: Optimizer, feeds: Any, state: Any) -> dict[str, Any]:
    values = evaluate(graph, feeds, state, 3)
    gradients = {f"gradient:{k}": values[v] for k, v in graph.gradients.items()}
    apply = apply_graph([graph[name] for name in graph.gradients], optimizer)
    return {k: evaluate(apply, gradients, state, 1)[v] for k, v in apply.updates.items()}


@pytest.mark.slow
def test_many_parameters_without_recursion() -> None:
    net = gc.Net("net")
    nodes = [net.parameter(f"p{i}", (2,)).node for i in range(3_000)]
    graph = apply_graph(nodes, gc.AdamW(clip_norm=1.0, accumulate=2))
    assert len(graph.updates) == 4 * 3_000 + 2
