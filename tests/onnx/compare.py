"""Whether a model is the net that it was written of, and others compute what graphc does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

import graphc as gc
from graphc.ir.difference import difference
from graphc.ir.graph import Graph
from graphc.ir.init import Zeros
from graphc.ir.op import Array
from graphc.onnx import load, save
from graphc.ops.source import Input, Parameter, State
from graphc.runtime.reference import initial_state


def bare(graph: Graph) -> Graph:
    """The graph with inputs first, then parameters and states: a model has them before its nodes.
    Those are sorted by name.

    What parameters and states start from is left out: a formula in one, numbers in the other.
    """
    nodes = []
    for node in graph:
        op = node.op
        if isinstance(op, Parameter):
            op = replace(op, init=Zeros())
        if isinstance(op, State):
            op = replace(op, start=0.0)
        nodes.append(replace(node, op=op))
    places = {Input: 0, Parameter: 1, State: 1}
    nodes.sort(key=lambda node: (place := places.get(type(node.op), 2), node.name * (place < 2)))
    return Graph(graph.name, nodes, outputs=graph.outputs, losses=graph.losses)


def agree(found: Mapping[str, Array], wanted: Mapping[str, Array], told: str) -> None:
    """The same outputs, within what float32 leaves of a sum in another order."""
    for name, array in wanted.items():
        assert found[name].shape == array.shape, f"{told}: {name}"
        np.testing.assert_allclose(
            found[name], array, rtol=1e-4, atol=1e-5, err_msg=f"{told}: {name}"
        )


def comes_back(ex: gc.Executor, path: Path, feeds: Mapping[str, Array], train: bool) -> None:
    """The file is read as the graph that was written, from which the same file is written."""
    net = load(save(ex, path, train=train))
    before, after = bare(ex.plan.declared), bare(net.graph())
    assert not difference(before, after)
    assert str(after) == str(before)  # so the order of nodes is the same, too
    assert {node.name: node.op.role for node in before} == {n.name: n.op.role for n in after}
    state = initial_state(net.graph(), 0)
    for name in state.keys() - {"seed", "draws"}:
        np.testing.assert_array_equal(state[name], ex.state[name], err_msg=name)
    written = path.read_bytes()
    assert save(net, path, train=train).read_bytes() == written
    again = gc.Executor(gc.compile(net, batch=ex.plan.options.batch, backend=ex.plan.backend))
    wanted, found = ex.forward(feeds), again.forward(feeds)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
