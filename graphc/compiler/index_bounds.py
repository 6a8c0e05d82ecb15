"""The largest indices that the whole-number feeds of a graph may hold."""

from __future__ import annotations

from collections.abc import Iterator

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op, step_of
from graphc.ir.tensor_type import Dim
from graphc.ops.losses.labels import LabelHit
from graphc.ops.shape import Cast, Transpose


def index_bounds(graph: Graph) -> dict[str, Dim]:
    """Return, for each integer feed that is used as indices, how many entries it may index."""
    return {name: limit for name, (limit, _) in indexed(graph).items()}


def indexed(graph: Graph) -> dict[str, tuple[Dim, Node]]:
    """Return the bound of each feed of indices, with the node that sets it."""
    bounds: dict[str, tuple[Dim, Node]] = {}
    for node in graph:
        for position, limit, reader in _limits(graph, node):
            name = through_moves(graph, node.inputs[position])
            known = bounds.get(name)
            if graph[name].op.is_input and (known is None or _is_below(limit, known[0])):
                bounds[name] = limit, reader
    return bounds


def _limits(graph: Graph, node: Node) -> Iterator[tuple[int, Dim, Node]]:
    """Yield the operands of a node that are indices, with their bounds and the node that reads."""
    step = step_of(node.op)
    if step is not None:
        for name, (limit, reader) in indexed(step.graph(())).items():
            if name in step.inputs:
                yield step.inputs.index(name), limit, reader
    elif type(node.op).index_bounds is not Op.index_bounds:  # most ops index nothing
        limits = node.op.index_bounds([graph[operand].type for operand in node.inputs])
        yield from ((position, limit, node) for position, limit in limits.items())


def _is_below(limit: Dim, other: Dim) -> bool:
    """Return whether a bound replaces another: the smaller one, or one that is known."""
    if isinstance(limit, int):
        return not isinstance(other, int) or limit < other
    return False


def ignored_labels(graph: Graph) -> dict[str, int]:
    """Return, for integer feeds that are only labels of losses, the label that all these ignore."""
    found: dict[str, set[int | None]] = {}
    for node in graph:
        for position in node.op.index_bounds([graph[operand].type for operand in node.inputs]):
            name = through_moves(graph, node.inputs[position])
            ignored = node.op.ignore if isinstance(node.op, LabelHit) else None
            found.setdefault(name, set()).add(ignored)
    single = {name: one for name, (one, *others) in found.items() if not others}
    return {name: one for name, one in single.items() if one is not None}


def through_moves(graph: Graph, name: str) -> str:
    """Return the node whose numbers a value has, perhaps in another order."""
    while graph[name].op.alias or isinstance(graph[name].op, (Cast, Transpose)):
        name = graph[name].inputs[0]
    return name
