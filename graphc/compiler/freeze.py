"""Frozen inference: parameters and running statistics become constants of the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.compiler.plan import Plan
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array
from graphc.ops.source import Constant
from passes.pipeline import run_passes
from passes.specialize import Specialize

Weights = Callable[[Sequence[str]], Mapping[str, Array]]
"""A function that copies arrays by name, at one moment; raises KeyError with a missing name."""


def refreshed(plan: Plan, weights: Weights) -> Plan:
    """Return a frozen plan whose constants are of other weights, otherwise unchanged."""
    if not any(isinstance(node.op, Constant) and node.op.label for node in plan.declared):
        raise GraphError(
            "refresh: this plan is not frozen",
            loc=caller_loc(),
            hint="share state instead: state=ex.state; quantize a net again: gc.quantize(ex, x)",
        )
    graph = _with_weights(plan.declared, weights)
    result = run_passes(graph, plan.options.filled(specialize=Specialize(train=False)))[0]
    program = plan.programs["infer"]
    if [(n.name, n.inputs, n.type) for n in result] != [
        (n.name, n.inputs, n.type) for n in program.graph
    ]:
        raise GraphError("refresh: the executor belongs to another net", loc=caller_loc())
    programs = {**plan.programs, "infer": replace(program, graph=result)}
    options = replace(plan.options, graph=graph)
    return replace(plan, declared=graph, programs=programs, options=options)


def frozen_graph(graph: Graph, state: Mapping[str, Array]) -> Graph:
    """Return the declared graph with constants for parameters and states, without losses."""
    changed: dict[str, Node | None] = {
        node.name: _constant(node, state) for node in graph if node.op.persistent
    }
    outputs = {k: v for k, v in graph.outputs.items() if k not in graph.losses}
    if not outputs:
        raise GraphError(
            f"freeze: net {graph.name!r} has no output but losses",
            loc=caller_loc(),
            hint='declare one: net.output("scores", scores)',
        )
    needed = graph.upstream(outputs.values())
    frozen = graph.replace(changed)  # inputs stay, so that labels may be fed as before
    kept = (node for node in frozen if node.name in needed or node.op.is_input)
    return Graph(graph.name, kept, outputs=outputs)


def _with_weights(graph: Graph, weights: Weights) -> Graph:
    labelled = [n for n in graph if isinstance(n.op, Constant) and n.op.label]
    try:
        state = weights([node.name for node in labelled])
    except KeyError as error:
        missing = error.args[0]
        raise GraphError(
            f"refresh: the other executor has no {missing!r}", loc=caller_loc()
        ) from None
    return graph.replace({node.name: _constant(node, state) for node in labelled})


def _constant(node: Node, state: Mapping[str, Array]) -> Node:
    array = state[node.name]
    shape = tuple(dim for dim in node.type.shape if isinstance(dim, int))
    if array.shape != shape:
        raise GraphError(f"refresh: {node.name!r} has another shape there", loc=caller_loc())
    data = np.ascontiguousarray(array).tobytes()
    op = Constant(shape, node.type.dtype, data, label=node.name)
    return Node(node.name, op, (), node.type, node.locs)
