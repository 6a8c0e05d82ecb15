"""The contents of a graph's or plan's page: its views, its table, and the facts of its nodes."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graphc.ir.graph import Graph
from graphc.ir.plan import Plan
from graphc.view.profile.executor_profile import Profile
from graphc.view.render.dot import dot_text
from graphc.view.render.graph_view import Drawing, graph_view
from graphc.view.render.memory_view import memory_view
from graphc.view.render.page import page_text
from graphc.view.render.page.data import facts_json
from graphc.view.render.page.facts import Facts, everything
from graphc.view.render.page.table import layer_table
from graphc.view.render.passes_view import pass_view
from graphc.view.render.time_view import time_view
from graphc.view.render.view import View


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
