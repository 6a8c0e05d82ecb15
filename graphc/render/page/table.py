"""One self-contained page: the picture, and the same in words as a table of layers."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from math import prod

from graphc.graph import Graph, Node
from graphc.op import Source
from graphc.ops.source import Input, Parameter
from graphc.render.picture import Picture
from graphc.render.style import DARK, FAMILY, LIGHT, variables
from graphc.render.words import shown
from graphc.tensor_type import shape_text

MOST_ROWS = 1000
"""Of more layers than this the table holds the first and the last."""

_STYLE = f"""\
:root {{ {variables(LIGHT)} color-scheme: light dark; }}
@media (prefers-color-scheme: dark) {{ :root {{ {variables(DARK)} }} }}
body {{ background: var(--paper); color: var(--ink); margin: 2rem auto; max-width: 80rem;
  padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; }}
figure {{ margin: 0 0 2rem; text-align: center; overflow-x: auto; }}
table {{ border-collapse: collapse; font-family: {FAMILY}; font-size: 0.875rem; }}
caption {{ text-align: left; color: var(--muted); padding: 0.5rem 0; }}
th, td {{ text-align: left; padding: 0.3rem 1rem 0.3rem 0; border-bottom: 1px solid var(--edge);
  vertical-align: top; overflow-wrap: anywhere; }}
td.count {{ text-align: right; }}
pre {{ overflow: auto; max-height: 30rem; padding: 1rem; border: 1px solid var(--edge); }}
.note {{ border-left: 4px solid var(--backward); padding-left: 1rem; white-space: pre-wrap; }}
"""


def page_text(declared: Graph, picture: Picture, svg: str) -> str:
    """The page with the finished picture."""
    return _page(declared, picture, f"<figure>\n{svg}</figure>")


def page_without_renderer(declared: Graph, picture: Picture, dot: str, note: str) -> str:
    """The page where nothing can draw: the note, the table, and the DOT text for later."""
    body = f'<p class="note">{html.escape(note)}</p>'
    source = f"<h2>DOT</h2>\n<pre>{html.escape(dot)}</pre>"
    return _page(declared, picture, body, source)


def _page(declared: Graph, picture: Picture, head: str, tail: str = "") -> str:
    name = html.escape(shown(picture.name))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n"
        f"<main>\n<h1>{name}</h1>\n{head}\n{_table(declared, picture)}\n{tail}\n</main>\n"
        "</body>\n</html>\n"
    )


def _table(declared: Graph, picture: Picture) -> str:
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
            yield f"<tr>{''.join(cells)}</tr>"
        elif index == half:
            yield f'<tr><td colspan="6">{hidden:,} layers are left out here</td></tr>'


def _cells(node: Node, declared: Graph, counted: set[str]) -> Iterator[str]:
    """The cells of a layer; a shared parameter is counted at its first reader."""
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
