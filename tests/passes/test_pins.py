"""Gradients by inner nodes: passes before Backward leave those nodes as they are."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.ir.graph import Graph
from passes.contract import pinned
from passes.cse import cse
from passes.fold_constants import fold_constants

ROWS = np.array([[1.0, 2.0], [3.0, -1.0]])


def products() -> gc.Net:
    """loss = mean(a * b * r2), where a and b are equal, and c, r, r2 are h in other words."""
    net = gc.Net("net", dtype="float64")
    h = gc.matmul(net.input("x", (gc.N, 2)), net.parameter("w", (2, 2)), name="h")
    a, b, c = gc.exp(h, name="a"), gc.exp(h, name="b"), gc.mul(h, 1, name="c")
    r = gc.reshape(c, (gc.N, 2, 1), name="r")
    net.loss("loss", gc.mean(a * b * gc.reshape(r, (gc.N, 2), name="r2")))
    return net


def asking(*names: str) -> Graph:
    graph = products().graph()
    return Graph("net", graph, outputs=graph.outputs, gradients={name: name for name in names})


def test_gradients_are_those_of_the_node_alone() -> None:
    net = products()
    ex = gc.Executor(gc.compile(net, batch=2, wrt=["b", "c", "r", "w"]))
    ex.forward(x=ROWS, train=True)
    gradients = ex.backward()
    h = ROWS @ ex.parameters["w"]
    np.testing.assert_allclose(gradients["b"], np.exp(h) * h / 4)
    np.testing.assert_allclose(gradients["c"], np.exp(2 * h) / 4)
    np.testing.assert_allclose(gradients["r"][:, :, 0], np.exp(2 * h) / 4)
    through_all = np.exp(2 * h) * (2 * h + 1) / 4
    np.testing.assert_allclose(gradients["w"], ROWS.T @ through_all)


def test_pinned_nodes_stay() -> None:
    graph = asking("b", "c", "r")
    assert pinned(graph) == {"b", "c", "r"}
    assert {"a", "b"} <= set(cse(graph).nodes)
    folded = fold_constants(graph)
    assert folded["r2"].inputs == ("r",)
    assert folded["r"].inputs == ("c",)


def test_others_do_not() -> None:
    graph = asking()
    assert "b" not in cse(graph)
    assert fold_constants(graph)["mul_2"].inputs == ("mul_1", "h")


def test_a_gradient_that_is_not_there_is_told_at_the_line_of_its_node() -> None:
    net = products()
    net.parameter("unused", (2,))
    with pytest.raises(gc.GraphError) as caught:
        gc.compile(net, batch=2, wrt=["unused", "w"])
    lines = str(caught.value).splitlines()
    assert lines[0] == ("loss 'loss' does not depend on parameter 'unused', so it has no gradient")
    assert lines[1].endswith('net.parameter("unused", (2,))')
