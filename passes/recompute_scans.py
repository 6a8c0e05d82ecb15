"""Cut long loops into segments, so that gradients keep less: a loop over segments of loops.

    y = scan of 512 steps      ->      z = scan of 16 steps: scan of 32 steps
                                       y = reshape(z)

The gradient of the outer loop keeps the carried values between segments, and recomputes each one.
Sums over steps have the order that `segment_scans` gives them, so that they have the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.graph import Graph, Node
from graphc.ops.loops.op import Scan, loops
from passes.contract import graph_pass
from passes.segment_scans import in_segments, is_long


@graph_pass(preserves="reassociated", on_steps=False)
def recompute_scans(graph: Graph) -> Graph:
    """Return the graph with loops over segments in the place of long loops."""
    found = {n[0].name: n for n in loops(graph).values() if is_long(n) and _carries(n)}
    return in_segments(graph, found) if found else graph


def has_long_loops(graph: Graph) -> bool:
    """Return whether a graph has loops that can be cut."""
    return any(is_long(nodes) and _carries(nodes) for nodes in loops(graph).values())


def _carries(nodes: Sequence[Node]) -> bool:
    op = nodes[0].op
    return isinstance(op, Scan) and bool(op.step.carried)
