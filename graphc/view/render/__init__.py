"""Pictures of graphs and plans as svg, png, pdf, dot or a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from graphc.base.errors import RendererMissing
from graphc.compiler.plan import Plan
from graphc.ir.graph import Graph
from graphc.view.render.layer_scene import graph_scene, picture_text, shown_graphs
from graphc.view.render.memory_view import memory_view
from graphc.view.render.page import Step, View, page_text
from graphc.view.render.page.facts import Facts, facts_json, layer_table
from graphc.view.render.passes_view import pass_view
from graphc.view.render.renderer import (
    LayoutTooSlow,
    dot_section,
    format_of,
    lay_out,
    missing_note,
    put,
    svg_of,
    write_drawing,
)
from graphc.view.render.time_view import time_view, times_svg

if TYPE_CHECKING:
    from graphc.view.profile import Profile

EXCHANGED = "data_parallel"
"""The name of the pass after which a graph has everything that shards exchange."""


def render_plan(plan: Plan, path: str | Path, *, fold: bool = True) -> Path:
    """Draw a plan's training program by layers, or its inference program if it has no loss."""
    graphs = plan.declared, plan_graph(plan)
    return write_drawing(partial(graph_scene, *graphs, fold), path, partial(page_of, *graphs, plan))


def render_net(graph: Graph, path: str | Path, *, fold: bool = True) -> Path:
    """Draw the layers of a declared graph."""
    return write_drawing(partial(graph_scene, graph, fold=fold), path, partial(page_of, graph))


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


def render_times(profile: Profile, path: str | Path) -> Path:
    """Write the times: .svg has the bars of the instructions, .html the plan's page with times."""
    target = Path(path)
    if format_of(target, ("svg", "html"), "the times as ") == "svg":
        return put(target, times_svg(profile).encode())
    plan = profile.plan
    return put(target, page_of(plan.declared, plan_graph(plan), plan, profile).encode())


def notebook_bundle(drawn: Graph | Plan, text: str) -> dict[str, str]:
    """Return what a notebook shows of a graph or plan: text, and SVG if there is a renderer."""
    pair = (drawn, None) if isinstance(drawn, Graph) else (drawn.declared, plan_graph(drawn))
    try:
        return {"text/plain": text, "image/svg+xml": svg_of(partial(graph_scene, *pair))}
    except (RendererMissing, LayoutTooSlow):
        return {"text/plain": text}


def page_of(
    graph: Graph,
    backward: Graph | None = None,
    plan: Plan | None = None,
    profile: Profile | None = None,
) -> str:
    """Return the page of a graph, folded and, if that differs, with every layer.

    With a plan it also shows the passes and the memory, and with a profile of it the time.  Without
    a renderer it has the DOT text, the table, and what to install.
    """
    note = missing_note()
    whole = partial(graph_scene, graph, backward, fold=False)
    views = []
    if note:
        scenes = [whole()]
    else:
        laid = [lay_out(partial(graph_scene, graph, backward), "svg")]
        if laid[0][0].picture.folds:
            laid.append(lay_out(whole, "svg"))
        scenes = [scene for scene, _ in laid]
        steps = (Step(", ".join(s.words), svg.decode(), picture_text(s.picture)) for s, svg in laid)
        views = [View("graph", "Graph", tuple(steps))]
    pictures = [scene.picture for scene in scenes]
    graphs = shown_graphs(graph, backward)
    table = layer_table(graphs[-1], pictures[-1])
    if note:
        table += dot_section(scenes[-1])
    if plan is not None:
        views.extend(_plan_views(plan, profile, views))
    facts = Facts(graphs) if plan is None else Facts.of_plan(plan, graphs[:1], profile)
    return page_text(scenes[-1].name, views, table, facts_json(facts, pictures), note)


def _plan_views(plan: Plan, profile: Profile | None, drawn: Sequence[View]) -> Iterator[View]:
    """Yield the passes, unless nothing was `drawn`, the memory, and the times if there are any."""
    if drawn:
        yield pass_view(plan)
    memory = memory_view(plan)
    if memory.steps:
        yield memory
    if profile is not None:
        yield time_view(profile, drawn[0].steps[-1].svg if drawn else "")
