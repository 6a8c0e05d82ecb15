"""Which feeds each value of a graph depends on."""

from __future__ import annotations

from graphc.graph import Graph
from graphc.ops.source import Input


def feed_masks(graph: Graph) -> dict[str, int]:
    """For each node, as bits, the feeds that it depends on."""
    masks: dict[str, int] = {}
    bit = 1
    for node in graph:
        if isinstance(node.op, Input):
            masks[node.name] = bit
            bit <<= 1
            continue
        mask = 0
        for operand in node.inputs:
            mask |= masks[operand]
        masks[node.name] = mask
    return masks
