"""Expansion of layers into the ops that they consist of, inside the work budget of the file."""

from __future__ import annotations

from graphc.base.import_paths import own_passes
from graphc.ir.graph import Graph
from graphc.ir.op import Layer


def expanded(graph: Graph, train: bool) -> Graph:
    """Return the graph with its layers expanded, or the graph itself if it has none."""
    if not any(isinstance(node.op, Layer) for node in graph):
        return graph
    own_passes()
    from passes.specialize import Specialize

    return Specialize(train)(graph)
