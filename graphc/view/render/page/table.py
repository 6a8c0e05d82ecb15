"""The layers as declared, as a table: the net in words."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from math import prod

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Source
from graphc.ir.tensor_type import shape_text
from graphc.ops.source import Input, Parameter
from graphc.view.render.picture import Picture
from graphc.view.render.words import shown

MOST_ROWS = 1000
"""The most layers in the table; of more it holds the first and the last."""


def layer_table(declared: Graph, picture: Picture) -> str:
    """Return the table, captioned as the picture is."""
    caption = html.escape(shown(", ".join(["Layers as declared", *picture.caption])))
    heads = "".join(
        f'<th scope="col">{word}</th>'
        for word in ("name", "op", "shape", "parameters", "count", "declared at")
    )
    body = "\n".join(_body(declared))
    return (
        f"<table>\n<caption>{caption}</caption>\n<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>"
    )


def _body(declared: Graph) -> Iterator[str]:
    nodes = [n for n in declared if isinstance(n.op, Input) or not isinstance(n.op, Source)]
    half = MOST_ROWS // 2
    hidden = len(nodes) - MOST_ROWS
    counted: set[str] = set()
    for index, node in enumerate(nodes):
        cells = list(_cells(node, declared, counted))
        if hidden <= 0 or index < half or index >= len(nodes) - half:
            name = html.escape(shown(node.name))
            yield f'<tr class="op" data-node="{name}">{"".join(cells)}</tr>'
        elif index == half:
            yield f'<tr><td colspan="6">{hidden:,} layers are left out here</td></tr>'


def _cells(node: Node, declared: Graph, counted: set[str]) -> Iterator[str]:
    """Yield the cells of a layer; a shared parameter is counted at its first user."""
    read = [declared[name] for name in dict.fromkeys(node.inputs)]
    parameters = [source for source in read if isinstance(source.op, Parameter)]
    fresh = [p for p in parameters if p.name not in counted]
    counted.update(p.name for p in fresh)
    total = sum(_size(p) for p in fresh)
    yield f'<th scope="row">{html.escape(shown(node.name))}</th>'
    yield f"<td>{html.escape(shown(node.op.name))}</td><td>{node.type}</td>"
    yield f"<td>{'<br>'.join(_parameters(parameters))}</td>"
    yield f'<td class="count">{f"{total:,}" if total else ""}</td>'
    yield f"<td>{html.escape(shown(str(node.locs[0]))) if node.locs else ''}</td>"


def _parameters(parameters: Iterable[Node]) -> Iterator[str]:
    for node in parameters:
        yield html.escape(shown(f"{node.name} {shape_text(node.type.shape)}"))


def _size(node: Node) -> int:
    return prod(node.op.shape) if isinstance(node.op, Parameter) else 0
