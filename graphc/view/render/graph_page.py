"""The page of a graph or a plan: its views, its table, and the facts of its nodes."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graphc.ir.graph import Graph
from graphc.ir.plan import Plan
from graphc.view.profile import Profile
from graphc.view.render.cards import bytes_text, card_lines
from graphc.view.render.dot import dot_text
from graphc.view.render.draw import Link, Picture
from graphc.view.render.memory_view import memory_view
from graphc.view.render.page import Step, View, page_text
from graphc.view.render.page.facts import Facts, everything, facts_json, layer_table
from graphc.view.render.passes_view import pass_view
from graphc.view.render.style import shown
from graphc.view.render.time_view import time_view


@dataclass(frozen=True)
class Subject:
    """A declared graph, its compiled form, and the plan and times if there are any."""

    declared: Graph
    compiled: Graph | None = None
    plan: Plan | None = None
    profile: Profile | None = None

    @property
    def facts(self) -> Facts:
        """The facts of all nodes, taken from the drawn graph first."""
        graphs = [graph for graph in (self.compiled, self.declared) if graph is not None]
        if self.plan is None:
            return Facts(tuple(graphs))
        return everything(self.plan, graphs[:1], self.profile)


def page_of(subject: Subject, drawings: Sequence[Drawing], note: str = "") -> str:
    """Return the page of drawings, each with less folded than the one before.

    Without a renderer the page has no SVG, but the DOT text, to lay out on another machine.
    """
    pictures = [drawing.picture for drawing in drawings]
    table = layer_table(subject.declared, pictures[-1])
    if not drawings[-1].svg:
        table += f"\n<h2>DOT</h2>\n<pre>{html.escape(dot_text(pictures[-1]))}</pre>"
    data = facts_json(subject.facts, pictures)
    return page_text(pictures[0].name, list(_views(subject, drawings)), table, data, note)


def _views(subject: Subject, drawings: Sequence[Drawing]) -> Iterator[View]:
    svg = drawings[-1].svg
    if svg:
        yield graph_view(drawings)
    if subject.plan is None:
        return
    if svg:
        yield pass_view(subject.plan)
    memory = memory_view(subject.plan)
    if memory.steps:
        yield memory
    if subject.profile is not None:
        yield time_view(subject.profile, svg)


MOST_LINES = 2000


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture and its SVG, which is empty if there is no renderer."""

    picture: Picture
    svg: str


def graph_view(drawings: Sequence[Drawing]) -> View:
    """Return the tab that a page opens with; if blocks are folded, its second step unfolds them.

    The words are those on the cards and arrows.
    """
    return View("graph", "Graph", tuple([_step(drawing) for drawing in drawings]))


def _step(drawing: Drawing) -> Step:
    lines = list(_words(drawing.picture))
    hidden = len(lines) - MOST_LINES
    if hidden > 0:
        lines[MOST_LINES:] = [f"... {hidden:,} more lines"]
    return Step(", ".join(drawing.picture.caption), drawing.svg, shown_lines(lines))


def shown_lines(lines: list[str]) -> str:
    """Return the lines joined, with line breaks and control characters in each escaped."""
    return "\n".join(map(shown, lines))


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


_WAYS = {"flow": "goes to", "gradient": "gradient goes to", "saved": "saved for backward of"}
