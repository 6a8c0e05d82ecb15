"""Nodes that gradients are asked of by name."""

from __future__ import annotations

from graphc.graph import Graph


def pinned(graph: Graph) -> frozenset[str]:
    """The nodes that must stay as they are until Backward, since a gradient is taken by them.

    Before Backward, `graph.gradients` maps such a node to itself.  A gradient by a node that
    was merged with another would be the sum of both, and none by a node that readers go around.
    """
    return frozenset(name for name, node in graph.gradients.items() if name == node)
