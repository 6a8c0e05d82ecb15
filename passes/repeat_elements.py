"""Recompute elementwise functions in the backward part, where keeping them would take more.

    b = sigmoid(a)             b = sigmoid(a)
    h = mul(a, b)       ->     h = mul(a, b)
    ...                        ...
    d_a = ... b ...            a.late = after(a, d_h)
                               b.again = sigmoid(a.late)
                               d_a = ... b.again ...

graphc/compiler/remat/elements.py chooses the values: of a chain of functions, only the value is
kept that all of them are computed from.  Kernels compute the clones in registers, so this is for
programs that have kernels.
"""

from __future__ import annotations

from graphc.compiler.remat.elements import repeated_elements
from graphc.ir.graph import Graph
from passes.pipeline import graph_pass
from passes.rematerialize import Rematerialize


@graph_pass(preserves="bitwise")
def repeat_elements(graph: Graph) -> Graph:
    """Return the graph with clones, or the graph as it was if nothing is gained."""
    chosen = repeated_elements(graph)
    return Rematerialize(chosen)(graph) if chosen else graph
