"""Pictures of graphs and plans: svg, png, pdf, dot, and a self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graphc.errors import GraphError, RendererMissing
from graphc.graph import Graph
from graphc.render.draw import ENDS, picture
from graphc.render.layout import (
    INSTALL,
    Format,
    LayoutTooSlow,
    find_renderer,
    need_renderer,
    run,
)
from graphc.render.picture import Picture

if TYPE_CHECKING:
    from graphc.plan import Plan

FORMATS = ("svg", "png", "pdf", "dot", "html")
PNG_DPI = 144


def render_plan(plan: Plan, path: str | Path, *, dot: str | Path | None = None) -> Path:
    """Draw a plan's training program, or its inference where there is no loss, in its layers."""
    return render_graph(plan.declared, path, backward=plan_graph(plan), dot=dot)


def plan_graph(plan: Plan) -> Graph:
    """The last graph of the program that a plan is drawn by."""
    program = next(name for name in ("grad", "step", "infer") if plan.graphs.get(name))
    return plan.graphs[program][-1].graph


def render_graph(
    graph: Graph,
    path: str | Path,
    *,
    backward: Graph | None = None,
    dot: str | Path | None = None,
) -> Path:
    """Draw a graph as its suffix says, svg, png, pdf, dot or html; returns the path.

    `backward` is what the graph was compiled to, gradients included: its nodes are drawn in
    the graph's layers.  `dot` is the renderer to use.  Raises GraphError for another suffix,
    and RendererMissing, before any work, where nothing here can draw the format.
    """
    target = Path(path)
    format = target.suffix.lower().removeprefix(".")
    if format not in FORMATS:
        raise GraphError(
            f"cannot draw {target.name!r}: the suffix says the format",
            hint=f"one of {', '.join('.' + name for name in FORMATS)}",
        )
    data = _drawn(graph, format, backward, dot)
    try:
        target.write_bytes(data)
    except OSError as error:
        raise GraphError(f"cannot write {str(target)!r}: {error.strerror}") from None
    return target


def svg_text(graph: Graph, *, backward: Graph | None = None, dot: str | Path | None = None) -> str:
    """The picture as SVG text, themed for light and dark.  RendererMissing without a renderer."""
    return _laid_out(graph, "svg", backward, dot)[1].decode()


def html_text(graph: Graph, *, backward: Graph | None = None, dot: str | Path | None = None) -> str:
    """The page; without a renderer it holds the DOT text, the table, and what to install."""
    from graphc.render.dot import dot_text
    from graphc.render.page import page_text, page_without_renderer

    if find_renderer(dot) is None:
        shown = picture(graph, backward)
        note = f"No picture: no Graphviz renderer was found. To have one, {INSTALL}"
        return page_without_renderer(graph, shown, dot_text(shown), note)
    shown, svg = _laid_out(graph, "svg", backward, dot)
    return page_text(graph, shown, svg.decode())


def notebook_svg(shown: Graph | Plan) -> str | None:
    """The SVG of a graph or plan for a notebook; None, so that its text is shown, without one."""
    try:
        if isinstance(shown, Graph):
            return svg_text(shown)
        return svg_text(shown.declared, backward=plan_graph(shown))
    except (RendererMissing, LayoutTooSlow):
        return None


def _drawn(graph: Graph, format: str, backward: Graph | None, dot: str | Path | None) -> bytes:
    if format == "dot":
        from graphc.render.dot import dot_text

        return dot_text(picture(graph, backward)).encode()
    if format == "html":
        return html_text(graph, backward=backward, dot=dot).encode()
    known: dict[str, Format] = {"svg": "svg", "png": "png", "pdf": "pdf"}
    return _laid_out(graph, known[format], backward, dot)[1]


def _laid_out(
    graph: Graph, format: Format, backward: Graph | None, dot: str | Path | None
) -> tuple[Picture, bytes]:
    """The picture and its file.  A graph too tangled to lay out in time shows its two ends."""
    from graphc.render.dot import dot_text
    from graphc.render.svg import finish

    renderer = need_renderer(format, dot)
    dpi = PNG_DPI if format == "png" else None
    shown = picture(graph, backward)
    try:
        # Ten seconds is ample for the usual few dozen layers.
        data = run(renderer, dot_text(shown, dpi=dpi), format, 10 + len(shown.layers) / 50)
    except LayoutTooSlow:
        if len(shown.layers) <= 2 * ENDS:
            raise
        shown = picture(graph, backward, most_layers=2 * ENDS)
        data = run(renderer, dot_text(shown, dpi=dpi), format)
    return shown, finish(data, shown).encode() if format == "svg" else data
