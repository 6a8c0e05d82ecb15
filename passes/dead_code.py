"""Remove the nodes that no output, gradient or update depends on.

    a = exp(x)        ->    b = neg(x)
    b = neg(x)
    output y = b

Outputs, gradients and updates are asked for; a state that is updated stays, too.  A loop hands on
only the values that its results need.
"""

from __future__ import annotations

from graphc.ir.graph import Graph, Node, joint_results
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
    for nodes in joint_results(live):
        changed.update(nodes[0].op.pruned(nodes))
    return _live(live.replace(changed)) if changed else live
