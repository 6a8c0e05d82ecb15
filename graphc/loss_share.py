"""By which share of a batch the loss of a shard counts in the loss of the whole.

    mean over rows             the share of the rows
    mean weighted by an input  the share of that input's sum
    sum over rows              1, for a shard with rows
    no rows at all             the share of the rows, since shares add up to 1

What lies behind a reduction counts as it does: twice a mean is a mean.
"""

from __future__ import annotations

from typing import cast

from graphc.errors import GraphError
from graphc.graph import Graph, Node
from graphc.ops.elementwise import Add, Sub
from graphc.ops.losses.row_loss import RowLoss
from graphc.ops.reduce import Sum
from graphc.ops.source import Constant, Input

ROWS, SUM, ALONE = "rows", "sum", "alone"
WEIGHT = "weight:"


def loss_shares(graph: Graph) -> tuple[tuple[str, str], ...]:
    """For each loss of a declared graph: ROWS, WEIGHT and an input's name, or SUM.

    GraphError for a loss that adds up values that count differently.
    """
    return tuple((loss, _share(graph, loss)) for loss in graph.losses)


def _share(graph: Graph, loss: str) -> str:
    found = _kinds(graph, graph.outputs[loss])
    if len(found - {ALONE}) > 1 or found == {SUM, ALONE}:
        node = graph[graph.outputs[loss]]
        raise GraphError(
            f"loss {loss!r} adds a sum over the rows to what is none, so shards of a batch cannot "
            "add it up",
            operands=[node.described("loss")],
            hint="declare them as losses of their own: net.loss(...) for each",
        )
    return next(iter(found - {ALONE}), ROWS)


def _kinds(graph: Graph, name: str) -> frozenset[str]:
    """How the terms of a value without rows count; ALONE for one that no row matters to."""
    found: dict[str, frozenset[str]] = {}
    needed = graph.upstream([name])
    for node in graph:
        if node.name in needed and not node.type.batched:
            found[node.name] = _of_node(graph, node, found)
    return found[name]


def _of_node(graph: Graph, node: Node, found: dict[str, frozenset[str]]) -> frozenset[str]:
    if isinstance(node.op, RowLoss):
        return frozenset({_of_row_loss(graph, node)})
    if any(graph[operand].type.batched for operand in node.inputs):
        return frozenset({SUM if isinstance(node.op, Sum) else ROWS})
    if not node.inputs:
        return frozenset({ALONE} if not isinstance(node.op, Constant) else ())
    parts = [found[operand] for operand in node.inputs]
    if not isinstance(node.op, (Add, Sub)):  # a factor without rows is none of the terms
        parts = [part for part in parts if part - {ALONE}] or parts
    return frozenset().union(*parts)


def _of_row_loss(graph: Graph, node: Node) -> str:
    if cast(RowLoss, node.op).reduction == "sum":
        return SUM
    weight = graph[node.inputs[2]] if len(node.inputs) == 3 else None
    return f"{WEIGHT}{weight.name}" if weight and isinstance(weight.op, Input) else ROWS
