"""The loop that computes graphs: what is known is not computed, and hooks see every value."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import GraphError
from graphc.ir.graph import Graph, Node
from graphc.ir.interpreter import by_reference, interpret
from graphc.ir.op import Array

X = np.array([[1.0, -2.0], [3.0, 4.0]])


def graph() -> Graph:
    net = gc.Net("net", dtype="float64")
    h = gc.relu(net.input("x", (gc.N, 2)), name="h")
    net.output("y", gc.exp(h * 2, name="y"))
    return net.graph()


def test_every_node_from_its_operands() -> None:
    values = interpret(graph(), by_reference(2), {"x": X})
    assert list(values) == [node.name for node in graph()]
    np.testing.assert_array_equal(values["y"], np.exp(2 * np.maximum(X, 0)))


def test_what_is_known_is_not_computed() -> None:
    values = interpret(graph(), by_reference(2), {"x": X, "h": np.zeros((2, 2))})
    np.testing.assert_array_equal(values["y"], np.ones((2, 2)))


def test_some_nodes_read_what_is_known_of_others() -> None:
    found = interpret([graph()["h"]], by_reference(2), {"x": X})
    assert found.keys() == {"x", "h"}


def test_users_read_what_the_hook_returns() -> None:
    seen = []

    def after(node: Node, value: Array) -> Array:
        seen.append(node.name)
        return np.zeros_like(value) if node.name == "x" else value

    values = interpret(graph(), by_reference(2), {"x": X}, after)
    assert seen == [node.name for node in graph()]
    assert (values["x"] == 0).all() and (values["y"] == 1).all()


def test_values_may_be_of_any_kind() -> None:
    depths = interpret(graph(), lambda node, ins: 1 + max(ins, default=0), {"x": 0})
    assert depths["y"] == 3


def test_a_value_of_another_type_is_an_error() -> None:
    with pytest.raises(
        GraphError, match=r"relu 'h': its reference rule gives float32\[2, 2\], its infer"
    ):
        interpret(graph(), by_reference(2), {"x": X.astype("float32")})
