"""Shards make up what the whole batch gives, also where a net or a batch is out of the ordinary."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc
from graphc.check.verify.claims import MEETINGS
from graphc.ir.graph import Graph
from graphc.ops.exchange import Send
from passes.contract import graph_pass
from tests.tools.generate import random_feeds

ROWS = 12
NATIVE = pytest.param("native", marks=pytest.mark.needs("native"))


def summed() -> gc.Net:
    net = gc.Net("summed", dtype="float64")
    net.loss("loss", gc.sum(gc.affine(net.input("x", (gc.N, 3)), 2) ** 2))
    return net


def masked_rows() -> gc.Net:
    """Three rows of a mask belong to one of the batch."""
    net = gc.Net("masked_rows", dtype="float64")
    rows = gc.reshape(net.input("x", (gc.N, 3, 4)), (3 * gc.N, 4))
    h = gc.affine(gc.dropout(rows, keep_prob=0.5), 5)
    net.loss("loss", gc.mean(gc.dropout(h, keep_prob=0.7) ** 2))
    return net


def masked_weights() -> gc.Net:
    """A mask without rows is one for all shards."""
    net = gc.Net("masked_weights", dtype="float64")
    w = net.parameter("w", (3, 2), init="he")
    net.loss("loss", gc.mean((net.input("x", (gc.N, 3)) @ gc.dropout(w, keep_prob=0.5)) ** 2))
    return net


def images() -> gc.Net:
    net = gc.Net("images", dtype="float64")
    h = gc.conv2d(net.input("x", (gc.N, 2, 4, 3)), 3, 3)
    net.loss("loss", gc.mean(gc.relu(gc.batchnorm(h)) ** 2))
    return net


def branches() -> gc.Net:
    """Normalisations that depend on each other in no way, one of them for its statistics only."""
    net = gc.Net("branches", dtype="float64")
    x = net.input("x", (gc.N, 2))
    net.output("scores", gc.batchnorm(x, name="a"))
    h = gc.concat([gc.tanh(gc.batchnorm(gc.affine(x, width))) for width in (2, 1, 2)], axis=1)
    net.loss("loss", gc.mean(h**3))
    return net


def apart() -> gc.Net:
    """A loss that the normalisation, for its statistics only, has nothing to do with."""
    net = gc.Net("apart", dtype="float64")
    x = net.input("x", (gc.N, 2))
    net.output("scores", gc.batchnorm(x))
    net.loss("loss", gc.mean(gc.affine(x, 3) ** 2))
    return net


def differentiated_by_input() -> gc.Net:
    """What only the gradient of x needs is not sent, since that is nobody else's."""
    net = gc.Net("differentiated_by_input", dtype="float64")
    h = gc.tanh(gc.batchnorm(gc.affine(net.input("x", (gc.N, 2)), 3, name="a")))
    net.loss("loss", gc.mean(gc.tanh(gc.batchnorm(gc.affine(h, 3, name="b"))) ** 2))
    return net


NETS = (summed, masked_rows, masked_weights, images, branches, apart, differentiated_by_input)


def stepped(plan: gc.Plan, net: gc.Net) -> tuple[list[float], gc.Executor]:
    ex = gc.Executor(plan, seed=0)
    return [ex.step(random_feeds(net.graph(), n, n)) for n in (ROWS, 7, 3, 1)], ex


@pytest.mark.one_in(13)
@pytest.mark.parametrize("backend", ["numpy", NATIVE])
@pytest.mark.parametrize("make", NETS, ids=lambda make: make.__name__)
def test_shards_are_the_whole_batch(make: Callable[[], gc.Net], backend: str) -> None:
    """Of batches that leave some shards without rows, too."""
    net = make()
    options = {"batch": ROWS, "optimizer": gc.SGD(lr=0.01, momentum=0.9), "backend": backend}
    if make is differentiated_by_input:
        options["wrt"] = ["x", "b.weight"]
    expected, whole = stepped(gc.compile(net, **options), net)
    for shards in (2, 4):
        plan = gc.compile(net, shards=shards, sync_batchnorm=True, **options)
        assert plan.verify().ok
        found, ex = stepped(plan, net)
        np.testing.assert_allclose(found, expected, rtol=1e-10)
        for name, array in whole.snapshot().items():
            np.testing.assert_allclose(ex.state[name], array, rtol=1e-9, atol=1e-12, err_msg=name)


@graph_pass(preserves="bitwise")
def all_sends(graph: Graph) -> Graph:
    sends = [node for node in graph if isinstance(node.op, Send)]
    needed = graph.upstream(operand for node in sends for operand in node.inputs)
    last = [node.name for node in sends if needed.isdisjoint(graph.users[node.name])]
    return Graph(graph.name, graph, outputs={name: name for name in last})


@pytest.mark.parametrize("backend", ["numpy", NATIVE])
def test_shards_that_would_wait_for_another_sum_are_found(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they did where those before the last sent what only the gradient of x needs."""
    monkeypatch.setattr("graphc.compiler.options.keep_sends", all_sends)
    options = {"batch": ROWS, "optimizer": gc.SGD(lr=0.1), "backend": backend}
    net, wrt = differentiated_by_input(), ["x", "b.weight"]
    plan = gc.compile(net, shards=2, sync_batchnorm=True, wrt=wrt, **options)
    found = plan.verify()
    assert found.plan is not None
    assert found.plan.rule == MEETINGS
    assert "awaits" in str(found.plan)
    assert "the plan as a whole: refuted" in str(found)


def test_a_derivative_through_synchronised_statistics_is_refused() -> None:
    net = gc.Net("penalty")
    x = net.input("x", (gc.N, 3))
    score = gc.sum(gc.tanh(gc.batchnorm(gc.affine(x, 5))))  # the line that is told
    net.loss("loss", gc.sum(gc.grad(score, x) ** 2))
    options = {"batch": ROWS, "optimizer": gc.SGD(lr=0.1), "shards": 2, "backend": "numpy"}
    gc.compile(net, **options)
    with pytest.raises(gc.GraphError, match=r"gc\.grad differentiates a batchnorm") as caught:
        gc.compile(net, sync_batchnorm=True, **options)
    assert "frozen=True" in str(caught.value)
    assert "test_whole.py" in str(caught.value)
