"""Remove the nodes that no output, gradient or update depends on.

    a = exp(x)        ->    b = neg(x)
    b = neg(x)
    output y = b

Outputs, gradients and updates are asked for; a state that is updated stays, too.
"""

from __future__ import annotations

from graphc.ir.graph import Graph
from passes.contract import graph_pass


@graph_pass(preserves="bitwise")
def dead_code(graph: Graph) -> Graph:
    """Return the graph without unread nodes."""
    return graph.pruned()
