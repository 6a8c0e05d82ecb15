"""Pictures can be reviewed: renaming one layer changes only the lines that name it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

import graphc as gc
from graphc.view.render import plan_graph
from graphc.view.render.layer_scene import graph_scene
from graphc.view.render.passes_view import pass_view
from tests.view.render.graphs import html_text, svg_text

NAMES = re.compile(r"lower|other|(?<![a-z])[lo]\w?~")
"""The two names, in full and as the memory picture cuts them where there is little room."""


def net(name: str) -> gc.Net:
    made = gc.Net("digits")
    h = made.input("x", (gc.N, 64))
    y = made.input("y", (gc.N,), dtype="int64")
    for width, layer in ((100, name), (50, "second")):
        h = gc.relu(gc.affine(h, width, name=layer))
    made.output("scores", gc.affine(h, 10, name="scores"))
    made.loss("loss", gc.softmax_loss(h, y))
    return made


def plan(name: str) -> gc.Plan:
    return gc.compile(net(name), batch=8, optimizer=gc.SGD(lr=0.1), backend="numpy")


def dot(plan: gc.Plan) -> str:
    return graph_scene(plan.declared, plan_graph(plan)).dot()


def svg(plan: gc.Plan) -> str:
    return svg_text(plan.declared, backward=plan_graph(plan))


def html(plan: gc.Plan) -> str:
    return html_text(plan.declared, backward=plan_graph(plan), plan=plan)


def passes(plan: gc.Plan) -> str:
    return "\n".join(part for step in pass_view(plan).steps for part in (step.svg, step.text))


@pytest.mark.one_in(6)
@pytest.mark.parametrize("drawn", [dot, svg, html, passes])
def test_only_lines_with_the_name_change(drawn: Callable[[gc.Plan], str]) -> None:
    old, new = drawn(plan("lower")).splitlines(), drawn(plan("other")).splitlines()
    assert len(old) == len(new)
    changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    assert changed
    for a, b in changed:
        assert NAMES.search(a) and NAMES.sub("*", a) == NAMES.sub("*", b)
    assert len(changed) < len(old) / 4


def test_a_shorter_name_moves_nothing_else() -> None:
    """Columns are no narrower than usual names are."""
    old, new = dot(plan("lower")).splitlines(), dot(plan("in")).splitlines()
    changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    assert changed and all("lower" in a for a, _ in changed)


def test_ids_do_not_depend_on_names() -> None:
    ids = [re.findall(r'\bid="?(\w+)', dot(plan(name))) for name in ("lower", "a_much_longer_name")]
    assert ids[0] == ids[1] and ids[0]
