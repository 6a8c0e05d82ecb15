"""Pictures of graphs and plans as svg, png, pdf, dot or a self-contained HTML page."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graphc.base.errors import RendererMissing
from graphc.compiler.plan import Plan
from graphc.ir.graph import Graph
from graphc.view.render.dot import bytes_text, card_lines, dot_text
from graphc.view.render.draw import ENDS, LAYER_LIMIT, Link, Picture, picture
from graphc.view.render.memory_view import memory_view
from graphc.view.render.page import Step, View, page_text
from graphc.view.render.page.facts import Facts, facts_json, layer_table
from graphc.view.render.passes_view import pass_view
from graphc.view.render.renderer import (
    INSTALL,
    PNG_DPI,
    LayoutTooSlow,
    find_renderer,
    finish,
    format_of,
    need_renderer,
    put,
    run,
)
from graphc.view.render.style import shown
from graphc.view.render.time_view import time_view, times_svg

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


def render_times(profile: Profile, path: str | Path) -> Path:
    """Write the times: .svg has the bars of the instructions, .html the plan's page with times."""
    target = Path(path)
    if format_of(target, ("svg", "html"), "the times as ") == "svg":
        return put(target, times_svg(profile).encode())
    plan = profile.plan
    page = html_text(plan.declared, backward=plan_graph(plan), plan=plan, profile=profile)
    return put(target, page.encode())


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
        """Return the picture for the renderer."""
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


MOST_LINES = 2000
"""The most lines of a picture in words."""
_WAYS = {"flow": "goes to", "gradient": "gradient goes to", "saved": "saved for backward of"}


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture and its SVG, which is empty if there is no renderer."""

    picture: Picture
    svg: str


def page_of(
    declared: Graph,
    compiled: Graph | None,
    drawings: Sequence[Drawing],
    *,
    plan: Plan | None = None,
    profile: Profile | None = None,
    note: str = "",
) -> str:
    """Return the page of drawings, each with less folded than the one before.

    Without a renderer the page has no SVG, but the DOT text, to lay out on another machine.
    """
    pictures = [drawing.picture for drawing in drawings]
    table = layer_table(declared, pictures[-1])
    if not drawings[-1].svg:
        table += f"\n<h2>DOT</h2>\n<pre>{html.escape(dot_text(pictures[-1]))}</pre>"
    graphs = (declared,) if compiled is None else (compiled, declared)
    facts = Facts(graphs) if plan is None else Facts.of_plan(plan, graphs[:1], profile)
    views = list(_views(drawings, plan, profile))
    return page_text(pictures[0].name, views, table, facts_json(facts, pictures), note)


def _views(
    drawings: Sequence[Drawing], plan: Plan | None, profile: Profile | None
) -> Iterator[View]:
    svg = drawings[-1].svg
    if svg:
        yield View("graph", "Graph", tuple([_step(drawing) for drawing in drawings]))
    if plan is None:
        return
    if svg:
        yield pass_view(plan)
    memory = memory_view(plan)
    if memory.steps:
        yield memory
    if profile is not None:
        yield time_view(profile, svg)


def _step(drawing: Drawing) -> Step:
    """Return the picture and the words on its cards and arrows."""
    lines = list(_words(drawing.picture))
    hidden = len(lines) - MOST_LINES
    if hidden > 0:
        lines[MOST_LINES:] = [f"... {hidden:,} more lines"]
    return Step(", ".join(drawing.picture.caption), drawing.svg, "\n".join(map(shown, lines)))


def _words(picture: Picture) -> Iterator[str]:
    readers: dict[str, list[Link]] = {}
    layer_of = {card.id: box for box in picture.layers for card in box.cards}
    for link in picture.links:
        readers.setdefault(link.source, []).append(link)
    for box in picture.layers:
        yield box.text
        for card in box.cards:
            texts = ("".join(run.text for run in line).strip() for _, line in card_lines(card))
            yield f"  {card.side}: {'; '.join(texts)}"
            for link in readers.get(card.id, ()):
                target = layer_of[link.target]
                name = target.text if target.fold else target.name
                yield f"    {_WAYS[link.kind]} {name}, {bytes_text(link.values)}"
