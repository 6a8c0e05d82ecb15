"""The feeds that each value of a graph depends on."""

from __future__ import annotations

from graphc.ir.graph import Graph, Node

ROWS = 1
"""The bit of values that depend on the number of rows, but not on a feed that has rows."""


def feed_masks(graph: Graph) -> dict[str, int]:
    """Return for each node, as bits, the feeds that it depends on."""
    masks: dict[str, int] = {}
    bit, batched = 2 * ROWS, 0
    for node in graph:
        if node.op.is_input:
            masks[node.name] = bit
            batched |= bit if node.type.batched else 0
            bit <<= 1
            continue
        mask = ROWS if counts_rows(graph, node) else 0
        for operand in node.inputs:
            mask |= masks[operand]
        masks[node.name] = mask & ~ROWS if mask & batched else mask
    return masks


def counts_rows(graph: Graph, node: Node) -> bool:
    """Return whether a node has as many rows as the batch, and no operand that has them."""
    given = node.op.is_input or any(graph[name].type.batched for name in node.inputs)
    return node.type.batched and not given
