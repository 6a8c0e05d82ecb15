"""Compute each common subexpression once.

    a = exp(x)            a = exp(x)
    b = exp(x)      ->    c = add(a, a)
    c = add(a, b)

Two nodes are the same if their ops are equal and they read the same nodes, merged ones
included.  The first of them stays and takes the lines of all.  Inputs, parameters and states are
never merged: equal declarations are different arrays.  Nor is a node that is differentiated by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphc.base.loc import Loc
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op
from passes.contract import graph_pass, pinned

Key = tuple[Op, tuple[str, ...]]


@graph_pass(preserves="bitwise")
def cse(graph: Graph) -> Graph:
    """Return the graph with equal nodes merged."""
    first: dict[Key, Node] = {}
    merged: dict[str, str] = {}
    pins = pinned(graph)
    for node in graph:
        if node.name in pins or (node.op.is_source and not node.op.is_constant):
            continue
        inputs = node.inputs
        if merged:
            inputs = tuple([merged.get(operand, operand) for operand in inputs])
        known = first.setdefault((node.op, inputs), node)
        if known is not node:
            merged[node.name] = known.name
    if not merged:
        return graph
    changed: dict[str, Node | None] = dict.fromkeys(merged)
    changed.update(_with_all_lines(graph, merged))
    return graph.replace(changed, reads=merged)


def _with_all_lines(graph: Graph, merged: Mapping[str, str]) -> dict[str, Node]:
    """Return the nodes that others were merged into, with the source lines of the others."""
    lines: dict[str, list[Loc]] = {}
    for name, kept in merged.items():
        lines.setdefault(kept, list(graph[kept].locs)).extend(graph[name].locs)
    return {
        name: replace(graph[name], locs=tuple(dict.fromkeys(locs))) for name, locs in lines.items()
    }
