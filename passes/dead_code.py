"""Remove the nodes that no output, gradient or update depends on.

    a = exp(x)        ->    b = neg(x)
    b = neg(x)
    output y = b

Outputs, gradients and updates are asked for; a state that is updated stays, too.  A loop hands on
only the values that its results need.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.ir.graph import Graph, Node
from graphc.ops.scan import Scan, loops
from passes.contract import graph_pass
from passes.steps import on_steps


@graph_pass(preserves="bitwise")
def dead_code(graph: Graph) -> Graph:
    """Return the graph without unread nodes, in the steps of loops too."""
    live = _live(graph)
    found = on_steps(dead_code, live)
    return live if found is live else dead_code(found)


def _live(graph: Graph) -> Graph:
    """Return what is read of a graph, and of the values that its loops hand on."""
    live = graph.pruned()
    changed: dict[str, Node | None] = {}
    for nodes in loops(live).values():
        changed.update(_pruned(nodes))
    return _live(live.replace(changed)) if changed else live


def _pruned(nodes: list[Node]) -> dict[str, Node]:
    """Return the nodes of a loop without the carried values that no result needs."""
    ops = [node.op for node in nodes if isinstance(node.op, Scan)]
    step = ops[0].step
    lasts = [op.result for op in ops if op.kind == "last"]
    found = step.pruned([op.result for op in ops if op.kind != "last"], lasts)
    if len(found.nodes) == len(step.nodes) and found.inputs == step.inputs:
        return {}
    operands = dict(zip(step.inputs, nodes[0].inputs, strict=True))
    inputs = tuple(operands[name] for name in found.inputs)
    return {
        node.name: replace(node, op=replace(op, step=found), inputs=inputs)
        for node, op in zip(nodes, ops, strict=True)
    }
