"""The check of a graph: every type is inferred again, and the roots are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from graphc.base.errors import GraphError, RuleError
from graphc.ir.graph import Graph, Node
from graphc.ir.op import inferred


def verify(graph: Graph, before: Graph | None = None) -> None:
    """Infer every type again, and check the roots; nodes that are in `before` are trusted.

    Names, order and acyclicity hold from construction.  Raise GraphError for the first
    node whose operands do not fit it or whose type is not what its op infers.
    """
    nodes = graph.nodes
    for node in graph if before is None else _suspects(graph, before):
        _verify_node(nodes, node)
    for state, value in graph.updates.items():
        wanted, given = nodes[state].type, nodes[value].type
        if wanted is not given and wanted != given:
            raise GraphError(
                f"update of {state!r} has type {graph[value].type}, the state {graph[state].type}"
            )


def _suspects(graph: Graph, before: Graph) -> Iterator[Node]:
    """Yield nodes that are not in `before`, or moved ahead of others there, and their users."""
    changed: set[str] = set()
    old = iter(before)
    expected = next(old, None)
    for node in graph:
        while expected is not None and expected is not node:
            name = expected.name
            if name in graph.nodes and name != node.name and name not in changed:
                break  # it occurs later
            expected = next(old, None)
        if node is not expected:
            changed.add(node.name)
            yield node
            continue
        expected = next(old, None)
        if changed and not changed.isdisjoint(node.inputs):
            yield node


def _verify_node(nodes: Mapping[str, Node], node: Node) -> None:
    try:
        found = inferred(node.op, [nodes[operand].type for operand in node.inputs])
    except ValueError as error:
        sentence, _, hint = str(error).partition("\n")
        raise GraphError(
            f"{node.op.name} {node.name!r}: {sentence}",
            loc=node.loc,
            hint=hint,
        ) from None
    except Exception as error:
        raise RuleError.of(node.op.name, "infer", error, node.name, node.loc) from error
    if found is not node.type and found != node.type:
        raise GraphError(f"{node.name!r} has type {node.type}, its op infers {found}")
