"""A net as a table of its layers, with shapes and numbers of parameters."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import shape_at, shape_text
from graphc.ops.source import Constant, Parameter, State

_HEAD = ("Layer (type)", "Output shape", "Params", "Connected to")


def summary(graph: Graph) -> str:
    """Return the table of layers and the totals: trainable numbers, and others such as statistics.

    A parameter that several layers share counts at its first reader.  Counters and seeds do not
    count.
    """
    rows = [_HEAD, *_rows(graph)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [_line(row, widths) for row in rows]
    rule = "-" * max(map(len, lines))
    table = [f"Net {graph.name!r}", rule, lines[0], rule, *lines[1:], rule]
    return "\n".join([*table, *_totals(graph)])


def _rows(graph: Graph) -> Iterator[tuple[str, str, str, str]]:
    counted: set[str] = set()
    for node in graph:
        if isinstance(node.op, (Parameter, State, Constant)):
            continue
        own = [n for n in node.inputs if _counts(graph[n]) and n not in counted]
        counted.update(own)
        reads = [n for n in node.inputs if not isinstance(graph[n].op, (Parameter, State))]
        yield (
            f"{node.name} ({node.op.name})",
            shape_text(node.type.shape),
            f"{sum(_size(graph[n]) for n in dict.fromkeys(own)):,}",
            ", ".join(reads),
        )


def _totals(graph: Graph) -> Iterator[str]:
    trained = [node for node in graph if isinstance(node.op, Parameter)]
    fixed = [node for node in graph if isinstance(node.op, State) and _counts(node)]
    kinds = (("Total", trained + fixed), ("Trainable", trained), ("Non-trainable", fixed))
    for kind, nodes in kinds:
        nbytes = sum(node.type.nbytes(1) for node in nodes)
        yield f"{kind} params: {sum(map(_size, nodes)):,} ({nbytes:,} bytes)"


def _counts(node: Node) -> bool:
    return isinstance(node.op, (Parameter, State)) and node.type.is_float


def _size(node: Node) -> int:
    return prod(shape_at(node.type.shape, 1))


def _line(row: tuple[str, str, str, str], widths: list[int]) -> str:
    layer, shape, params, reads = row
    cells = f"{layer:<{widths[0]}}  {shape:<{widths[1]}}  {params:>{widths[2]}}  {reads}"
    return cells.rstrip()
