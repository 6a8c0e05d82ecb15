"""Pictures of graphs and plans: svg, png, pdf, dot, and a self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graphc.errors import RendererMissing
from graphc.graph import Graph
from graphc.render.draw import ENDS, picture
from graphc.render.files import PNG_DPI, format_of, put
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
    from graphc.profile.executor_profile import Profile


def render_plan(plan: Plan, path: str | Path, *, dot: str | Path | None = None) -> Path:
    """Draw a plan's training program, or its inference where there is no loss, in its layers."""
    return _write(plan.declared, path, plan_graph(plan), dot, plan)


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
    return _write(graph, path, backward, dot, None)


def svg_text(graph: Graph, *, backward: Graph | None = None, dot: str | Path | None = None) -> str:
    """The picture as SVG text, themed for light and dark.  RendererMissing without a renderer."""
    return _laid_out(graph, "svg", backward, dot)[1].decode()


def html_text(
    graph: Graph,
    *,
    backward: Graph | None = None,
    dot: str | Path | None = None,
    plan: Plan | None = None,
    profile: Profile | None = None,
) -> str:
    """The page; without a renderer it holds the DOT text, the table, and what to install.

    With a plan it shows the passes and the memory too, and with a profile of it the time.
    """
    from graphc.render.page.build import Subject, page_of

    subject = Subject(graph, backward, plan, profile)
    if find_renderer(dot) is None:
        note = f"No picture: no Graphviz renderer was found. To have one, {INSTALL}"
        return page_of(subject, picture(graph, backward), None, note)
    shown, svg = _laid_out(graph, "svg", backward, dot)
    return page_of(subject, shown, svg.decode())


def notebook_svg(shown: Graph | Plan) -> str | None:
    """The SVG of a graph or plan for a notebook; None, so that its text is shown, without one."""
    try:
        if isinstance(shown, Graph):
            return svg_text(shown)
        return svg_text(shown.declared, backward=plan_graph(shown))
    except (RendererMissing, LayoutTooSlow):
        return None


def _write(
    graph: Graph,
    path: str | Path,
    backward: Graph | None,
    dot: str | Path | None,
    plan: Plan | None,
) -> Path:
    target = Path(path)
    format = format_of(target)
    data = (
        html_text(graph, backward=backward, dot=dot, plan=plan).encode()
        if format == "html"
        else _drawn(graph, format, backward, dot)
    )
    return put(target, data)


def _drawn(graph: Graph, format: str, backward: Graph | None, dot: str | Path | None) -> bytes:
    if format == "dot":
        from graphc.render.dot import dot_text

        return dot_text(picture(graph, backward)).encode()
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
