"""Pictures of graphs and plans as svg, png, pdf, dot or a self-contained HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graphc.base.errors import RendererMissing
from graphc.compiler.plan import Plan
from graphc.ir.graph import Graph
from graphc.view.render.dot import dot_text
from graphc.view.render.draw import ENDS, LAYER_LIMIT, Picture, picture
from graphc.view.render.layout import (
    INSTALL,
    PNG_DPI,
    LayoutTooSlow,
    find_renderer,
    format_of,
    need_renderer,
    put,
    run,
)
from graphc.view.render.svg import finish

if TYPE_CHECKING:
    from graphc.view.profile import Profile

EXCHANGED = "data_parallel"
"""The name of the pass after which a graph has everything that shards exchange."""


def render_plan(
    plan: Plan, path: str | Path, *, fold: bool = True, dot: str | Path | None = None
) -> Path:
    """Draw a plan's training program by layers, or its inference program if it has no loss."""
    return _write(Shown(plan.declared, plan_graph(plan), fold, dot), path, plan)


def plan_graph(plan: Plan) -> Graph:
    """Return the last graph of the program that a plan's picture shows.

    If a step is cut into shards, it is the graph with all gradients, as the shards exchange them.
    """
    if plan.shards is not None:
        steps = (plan.graphs[name] for name in ("step", "accumulate") if name in plan.graphs)
        found = [record.graph for rows in steps for record in rows if record.name == EXCHANGED]
        if found:
            return found[0]
    program = next(name for name in ("grad", "step", "infer") if plan.graphs.get(name))
    return plan.graphs[program][-1].graph


def render_graph(
    graph: Graph,
    path: str | Path,
    *,
    backward: Graph | None = None,
    fold: bool = True,
    dot: str | Path | None = None,
) -> Path:
    """Draw a graph in the format that the suffix names (svg, png, pdf, dot, html); return the path.

    `backward` is the compiled graph, gradients included: its nodes are drawn in the graph's layers.
    With `fold` a repeated block of layers is drawn once.  `dot` is the renderer to use.  Raise
    GraphError for another suffix.  Raise RendererMissing, before any work, if no renderer on this
    machine can draw the format.
    """
    return _write(Shown(graph, backward, fold, dot), path, None)


def svg_text(
    graph: Graph,
    *,
    backward: Graph | None = None,
    fold: bool = True,
    dot: str | Path | None = None,
) -> str:
    """Return the picture as SVG text, themed for light and dark.

    Raise RendererMissing if there is no renderer.
    """
    return _laid_out(Shown(graph, backward, fold, dot), "svg")[1].decode()


def html_text(
    graph: Graph,
    *,
    backward: Graph | None = None,
    dot: str | Path | None = None,
    plan: Plan | None = None,
    profile: Profile | None = None,
) -> str:
    """Return the page; without a renderer it has the DOT text, the table, and what to install.

    With a plan the page also shows the passes and the memory, and with a profile of it the time.
    """
    from graphc.view.render.graph_page import Drawing, page_of

    note = ""
    if find_renderer(dot) is None:
        note = f"No picture: no Graphviz renderer was found. To have one, {INSTALL}"
        drawings = [Drawing(picture(graph, backward, fold=False), "")]
    else:
        made, svg = _laid_out(Shown(graph, backward, True, dot), "svg")
        drawings = [Drawing(made, svg.decode())]
        if made.folds:
            made, svg = _laid_out(Shown(graph, backward, False, dot), "svg")
            drawings.append(Drawing(made, svg.decode()))
    return page_of(graph, backward, drawings, plan=plan, profile=profile, note=note)


def notebook_bundle(drawn: Graph | Plan, text: str) -> dict[str, str]:
    """Return what a notebook shows of a graph or plan: text, and SVG if there is a renderer."""
    bundle = {"text/plain": text}
    try:
        if isinstance(drawn, Graph):
            bundle["image/svg+xml"] = svg_text(drawn)
        else:
            bundle["image/svg+xml"] = svg_text(drawn.declared, backward=plan_graph(drawn))
    except (RendererMissing, LayoutTooSlow):
        pass
    return bundle


@dataclass(frozen=True, slots=True)
class Shown:
    """The arguments of one drawing: see `render_graph`."""

    graph: Graph
    backward: Graph | None
    fold: bool
    dot: str | Path | None

    def picture(self, most_layers: int = LAYER_LIMIT) -> Picture:
        """Return the picture that goes to the renderer."""
        return picture(self.graph, self.backward, fold=self.fold, most_layers=most_layers)


def _write(shown: Shown, path: str | Path, plan: Plan | None) -> Path:
    target = Path(path)
    format = format_of(target)
    if format == "html":
        page = html_text(shown.graph, backward=shown.backward, dot=shown.dot, plan=plan)
        return put(target, page.encode())
    if format == "dot":
        return put(target, dot_text(shown.picture()).encode())
    return put(target, _laid_out(shown, format)[1])


def _laid_out(shown: Shown, format: str) -> tuple[Picture, bytes]:
    """Return the picture and its file; of a graph too tangled to lay out in time, its two ends."""
    renderer = need_renderer(format, shown.dot)
    dpi = PNG_DPI if format == "png" else None
    made = shown.picture()
    try:
        # Ten seconds is ample for the usual few dozen layers.
        data = run(renderer, dot_text(made, dpi=dpi), format, 10 + len(made.layers) / 50)
    except LayoutTooSlow:
        if len(made.layers) <= 2 * ENDS:
            raise
        made = shown.picture(most_layers=2 * ENDS)
        data = run(renderer, dot_text(made, dpi=dpi), format)
    return made, finish(data, made).encode() if format == "svg" else data
