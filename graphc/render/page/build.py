"""What goes onto the page of a graph or plan: its views, its table, and the facts of its nodes."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass

from graphc.graph import Graph
from graphc.plan import Plan
from graphc.profile.executor_profile import Profile
from graphc.render.dot import dot_text
from graphc.render.graph_view import graph_view
from graphc.render.memory_view import memory_view
from graphc.render.page import page_text
from graphc.render.page.data import facts_json
from graphc.render.page.facts import Facts, everything
from graphc.render.page.table import layer_table
from graphc.render.passes_view import pass_view
from graphc.render.picture import Picture
from graphc.render.time_view import time_view
from graphc.render.view import View


@dataclass(frozen=True)
class Subject:
    """A declared graph, what it was compiled to, and, where there are any, the plan and times."""

    declared: Graph
    compiled: Graph | None = None
    plan: Plan | None = None
    profile: Profile | None = None

    @property
    def facts(self) -> Facts:
        """The facts of all nodes, told from the drawn graph first."""
        graphs = [graph for graph in (self.compiled, self.declared) if graph is not None]
        if self.plan is None:
            return Facts(tuple(graphs))
        return everything(self.plan, graphs[:1], self.profile)


def page_of(subject: Subject, picture: Picture, svg: str | None, note: str = "") -> str:
    """The page.  Without an SVG of the picture it has the DOT text, to lay out elsewhere."""
    table = layer_table(subject.declared, picture)
    if svg is None:
        table += f"\n<h2>DOT</h2>\n<pre>{html.escape(dot_text(picture))}</pre>"
    views = list(_views(subject, picture, svg))
    return page_text(picture.name, views, table, facts_json(subject.facts, picture), note)


def _views(subject: Subject, picture: Picture, svg: str | None) -> Iterator[View]:
    if svg is not None:
        yield graph_view(picture, svg)
    if subject.plan is None:
        return
    if svg is not None:
        yield pass_view(subject.plan)
    memory = memory_view(subject.plan)
    if memory.steps:
        yield memory
    if subject.profile is not None:
        yield time_view(subject.profile, svg)
