"""The nodes to differentiate by, which earlier passes must keep."""

from __future__ import annotations

from graphc.ir.graph import Graph


def pinned(graph: Graph) -> frozenset[str]:
    """Return the nodes that must stay as they are until Backward, which differentiates by them.

    Before Backward, `graph.gradients` maps such a node to itself.  If the node were merged with
    another, its gradient would be the sum of both; if readers read another, it would have none.
    """
    return frozenset(name for name, node in graph.gradients.items() if name == node)
