"""Whether a pass keeps what it says it keeps."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc as gc
import passes
from graphc.ir.graph import Graph
from graphc.ir.verify import verify
from graphc.ops.source import Constant, Parameter, State
from graphc.runtime.reference import evaluate
from passes.backward import Backward
from passes.contract import Pass, preserves_of
from passes.specialize import Specialize
from tests.tools.generate import random_feeds, random_state


def results(graph: Graph, feeds: dict[str, Any], state: dict[str, Any], n: int) -> dict[str, Any]:
    """Outputs, gradients and next states by kind and name."""
    values = evaluate(graph, feeds, state, n, train=True)
    roots = {"output": graph.outputs, "gradient": graph.gradients, "update": graph.updates}
    return {f"{kind} {k}": values[v] for kind, names in roots.items() for k, v in names.items()}


def assert_preserved(step: Pass, graph: Graph, n: int) -> Graph:
    """Run the pass; the results must be equal by the class that it declares."""
    after = step(graph)
    verify(after)
    feeds, state = random_feeds(graph, n), random_state(graph)
    assert_equal_results(
        results(graph, feeds, state, n),
        results(after, feeds, state, n),
        bitwise=preserves_of(step) == "bitwise",
    )
    return after


def assert_equal_results(
    expected: dict[str, Any], found: dict[str, Any], bitwise: bool = False
) -> None:
    assert list(expected) == list(found)
    for name, value in expected.items():
        other = found[name]
        assert (value.shape, value.dtype) == (other.shape, other.dtype), name
        if bitwise:
            assert value.tobytes() == other.tobytes(), name
        elif value.dtype.kind == "f":
            close = 1e-8 if value.dtype == np.float64 else 1e-3
            np.testing.assert_allclose(other, value, rtol=close, atol=close, err_msg=name)
        else:
            np.testing.assert_array_equal(other, value, err_msg=name)


def parameters(graph: Graph) -> tuple[str, ...]:
    return tuple(node.name for node in graph if isinstance(node.op, Parameter))


def training_passes(graph: Graph) -> tuple[Pass, ...]:
    """The default passes of a program that asks for gradients."""
    backward = Backward(graph.losses, parameters(graph))
    return passes.DEFAULT.fill({"specialize": Specialize(train=True), "backward": backward})


def specialized(net: gc.Net, train: bool = True) -> Graph:
    return Specialize(train)(net.graph())


def differentiated(net: gc.Net) -> Graph:
    """Gradients of every parameter that has one, before any other pass."""
    graph = specialized(net)
    return Backward(graph.losses, parameters(graph))(graph)


def frozen(net: gc.Net, label: bool = True) -> Graph:
    """For inference, with constants for parameters and states."""
    graph = specialized(net, train=False)
    state = random_state(graph)
    changed: dict[str, gc.Node | None] = {}
    for node in graph:
        if isinstance(node.op, (Parameter, State)):
            data = np.ascontiguousarray(state[node.name]).tobytes()
            shape = state[node.name].shape
            op = Constant(shape, node.type.dtype, data, node.name if label else "")
            changed[node.name] = gc.Node(node.name, op, (), node.type, node.locs)
    return graph.replace(changed)
