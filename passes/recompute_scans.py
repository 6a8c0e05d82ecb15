"""Cut long loops themselves into segments, so that gradients recompute a segment at a time.

    y = scan of 512 steps      ->      z = scan of 16 steps: scan of 32 steps
                                       y = reshape(z)

The gradient keeps only the carried values between segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from graphc.ir.graph import Graph, Node
from graphc.ops.scan import Scan, loops
from passes.segment_scans import SegmentScans, is_long


@dataclass(frozen=True)
class RecomputeScans(SegmentScans):
    """The pass that cuts long loops themselves, whose gradients then recompute each segment."""

    name: ClassVar[str] = "recompute_scans"

    def _cuts(self, nodes: Sequence[Node]) -> bool:
        return _carries(nodes)


def has_long_loops(graph: Graph) -> bool:
    """Return whether a graph has loops that can be cut."""
    return any(is_long(nodes) and _carries(nodes) for nodes in loops(graph).values())


def _carries(nodes: Sequence[Node]) -> bool:
    op = nodes[0].op
    return isinstance(op, Scan) and bool(op.step.carried)
