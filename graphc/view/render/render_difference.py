"""A difference as a file: svg, png, pdf, dot, or a page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from graphc.ir.difference import Difference
from graphc.ir.graph import Graph
from graphc.view.render.files import format_of, put
from graphc.view.render.layout import INSTALL, Format, find_renderer
from graphc.view.render.passes_view import pass_sheet, pass_text
from graphc.view.render.picture import Picture
from graphc.view.render.sheet import Sheet, sheet_dot, sheet_file, sheet_svg
from graphc.view.render.view import Step, View


def render_difference(
    made: Difference,
    path: str | Path,
    *,
    name: str,
    words: Sequence[str] = (),
    declared: Graph | None = None,
    dot: str | Path | None = None,
) -> Path:
    """Draw a difference in the format that the suffix names; return the path.

    `words` are lines for its heading.  A page also has the table of the layers of `declared`, or
    else of the graph after.  Raise the errors that `render_graph` raises.
    """
    target = Path(path)
    format = format_of(target)
    sheet = pass_sheet(name, made, words)
    if format == "dot":
        return put(target, sheet_dot(sheet).encode())
    if format == "html":
        step = pass_text(made, words)
        return put(target, _page(sheet, made, step, declared or made.after, dot).encode())
    known: dict[str, Format] = {"svg": "svg", "png": "png", "pdf": "pdf"}
    return put(target, sheet_file(sheet, known[format], dot=dot))


def _page(
    sheet: Sheet, made: Difference, text: str, declared: Graph, dot: str | Path | None
) -> str:
    from graphc.view.render.page import page_text
    from graphc.view.render.page.data import facts_json
    from graphc.view.render.page.facts import Facts
    from graphc.view.render.page.table import layer_table

    nothing = Picture(sheet.name, (), (), ())
    data = facts_json(Facts((made.after, made.before)), [nothing])
    table = layer_table(declared, nothing)
    if find_renderer(dot) is None:
        note = f"No picture: no Graphviz renderer was found. To have one, {INSTALL}"
        words = f"<h2>Difference</h2>\n<pre>{html.escape(text)}</pre>"
        source = f"<h2>DOT</h2>\n<pre>{html.escape(sheet_dot(sheet))}</pre>"
        return page_text(sheet.name, (), f"{table}\n{words}\n{source}", data, note)
    step = Step(sheet.name, sheet_svg(sheet, dot=dot), text)
    view = View("difference", "Difference", (step,))
    return page_text(sheet.name, (view,), table, data)
