"""Runs one step node by node, to find the first value that is not finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from graphc.base.errors import GraphError
from graphc.compiler.loss_share import divisors
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array
from graphc.ops.exchange import ShardInput
from graphc.ops.source import Constant
from graphc.runtime.executor import Executor
from graphc.runtime.reference import evaluate, next_state

Part = Literal["forward", "backward", "update"]


@dataclass(frozen=True)
class Origin:
    """The node where non-finite values began, and the values that it read and computed.

    `sure` is false if the reference rules stay finite, because they round differently: then it
    is the node with the largest values.
    """

    graph: Graph
    node: Node
    part: Part
    values: Mapping[str, Array]
    sure: bool = True


def traced(ex: Executor, feeds: Mapping[str, Any], state: Mapping[str, Array]) -> Origin:
    """Return the origin in a step on these feeds from this state.

    It runs the graph of the step as it is before anything is fused, so that its nodes are those
    that the user declared, their gradients, and the updates.
    """
    arrays, n = ex.rows(feeds, train=True)
    name = "accumulate" if ex.plan.accumulate > 1 else "step"
    graph = _recorded(ex, name, "update")
    arrays |= whole_batch(graph) | _divisors(ex, graph, arrays, n)
    with np.errstate(all="ignore"):
        values = evaluate(graph, arrays, _of(graph, state), n)
        runs = [(graph, values)]
        after = {**state, **next_state(graph, values, _of(graph, state))}
        if name == "accumulate" and int(after[ex.plan.step_counter]) >= ex.plan.accumulate:
            apply = ex.plan.graphs["apply"][0].graph
            runs.append((apply, evaluate(apply, {}, _of(apply, after), 1)))
    for made, known in runs:
        node = first_bad(made, known)
        if node is not None:
            return Origin(made, node, _part(ex, name, node), known)
    node = max((node for node in graph if node.inputs), key=lambda node: _size(values[node.name]))
    return Origin(graph, node, _part(ex, name, node), values, sure=False)


def whole_batch(graph: Graph) -> dict[str, Array]:
    """Return the shard inputs of a graph whose only shard is the whole batch, from row 0."""
    found = [node for node in graph if isinstance(node.op, ShardInput)]
    return {node.name: np.asarray(node.type.is_float, node.type.dtype) for node in found}


def _divisors(ex: Executor, graph: Graph, arrays: Mapping[str, Array], n: int) -> dict[str, Array]:
    """Return the divisors by which shards of the whole batch divide weighted means."""
    fed = {node.name: node.type.dtype for node in graph if isinstance(node.op, ShardInput)}
    found = [divisor for divisor in divisors(ex.plan.declared) if divisor.name in fed]
    return {d.name: np.asarray(d(arrays, n), fed[d.name]) for d in found}


def first_bad(graph: Graph, values: Mapping[str, Array]) -> Node | None:
    """Return the first node that is not finite, of those that a loss or an update depends on.

    An infinity from a constant of the net, such as that of a mask, is intended, and so are the
    values that follow from it, until they become NaN.
    """
    needed = graph.upstream(
        [*(graph.outputs[name] for name in graph.losses), *graph.updates.values()]
    )
    meant: set[str] = set()
    for node in graph:
        array = values[node.name]
        if node.name not in needed or array.dtype.kind != "f" or np.isfinite(array).all():
            continue
        inherited = isinstance(node.op, Constant) or not meant.isdisjoint(node.inputs)
        if inherited and not np.isnan(array).any():
            meant.add(node.name)
        else:
            return node
    return None


def _recorded(ex: Executor, program: str, name: str) -> Graph:
    """Return the graph of a program after the pass of that name."""
    for record in ex.plan.graphs[program]:
        if record.name == name:
            return record.graph
    raise GraphError(f"the plan has no record of the pass {name!r}")


def _part(ex: Executor, program: str, node: Node) -> Part:
    """Return the part that the node belongs to: the pass that made it tells."""
    if node.name in _recorded(ex, program, "specialize"):
        return "forward"
    return "backward" if node.name in _recorded(ex, program, "backward") else "update"


def _of(graph: Graph, state: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array for name, array in state.items() if name in graph}


def _size(array: Array) -> float:
    return float(np.abs(array).max(initial=0.0)) if array.dtype.kind == "f" else 0.0
