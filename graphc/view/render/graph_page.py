"""The page of a graph or a plan: its views, its table, and the facts of its nodes."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graphc.compiler.plan import Plan
from graphc.ir.graph import Graph
from graphc.view.profile import Profile
from graphc.view.render.cards import bytes_text, card_lines
from graphc.view.render.dot import dot_text
from graphc.view.render.draw import Link, Picture
from graphc.view.render.memory_view import memory_view
from graphc.view.render.page import Step, View, page_text
from graphc.view.render.page.facts import Facts, facts_json, layer_table
from graphc.view.render.passes_view import pass_view
from graphc.view.render.style import shown
from graphc.view.render.time_view import time_view

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
