"""The page as text: one file, inert names, the facts of every node, the same bytes again."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import pytest

import graphc as gc
from graphc.compiler.plan import Plan
from graphc.view.render import plan_graph
from graphc.view.render.finish import slim
from graphc.view.render.style import printable
from tests.extras import needs
from tests.view.render.graphs import HOSTILE, deep, digits, hostile, html_text, residual

NAME, OP, TYPE, LINE, ROWS, DERIVED, OPERANDS, READERS, CARD = range(9)


def _plan(net: gc.Net) -> Plan:
    return gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1))


def _page(plan: Plan) -> str:
    return html_text(plan.declared, backward=plan_graph(plan), plan=plan)


class _Tags(HTMLParser):
    """How often each tag begins."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found[tag] += 1


def _data(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def _digits_page() -> str:
    return _page(_plan(digits()))


@pytest.fixture(scope="module")
def page() -> str:
    """The page of the digits network."""
    return _digits_page()


@pytest.mark.slow
def test_equal_plans_give_equal_pages(page: str) -> None:
    assert _digits_page() == page


@pytest.mark.slow
def test_a_page_asks_for_nothing_outside(page: str) -> None:
    assert not re.search(r"\b(?:src|href|action)=|@import|url\(|<link|<img|<iframe|<a[ >]", page)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}


def test_the_page_runs_its_own_script_only(page: str) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page


def test_every_view_has_a_tab_and_words(page: str) -> None:
    needs("renderer")
    tabs = re.findall(r'aria-controls="view-(\w+)"', page)
    assert tabs == ["graph", "passes", "memory", "layers"]
    assert page.count("<figure") == page.count("<summary>In words</summary>")
    assert "saved for backward of relu_1, 400*N bytes" in page


def test_the_facts_are_those_of_the_plan(page: str) -> None:
    plan = _plan(digits())
    nodes = _data(page)["nodes"]
    by_name = {node[NAME]: node for node in nodes}
    graph = plan_graph(plan)
    for node in graph:
        told = by_name[node.name]
        assert (told[OP], told[TYPE]) == (node.op.name, str(node.type))
        assert [nodes[i][NAME] for i in told[OPERANDS]] == list(dict.fromkeys(node.inputs))
        readers = list(dict.fromkeys(graph.users[node.name]))
        assert [nodes[i][NAME] for i in told[READERS]] == readers
    everywhere = {
        node.name for records in plan.graphs.values() for r in records for node in r.graph
    }
    assert by_name.keys() == {*everywhere, *plan.declared.nodes}


def test_a_node_shows_the_line_of_the_user_with_its_text(page: str) -> None:
    (told,) = (node for node in _data(page)["nodes"] if node[NAME] == "scores")
    assert re.match(r"graphs\.py:\d+ in digits, called at test_page\.py:\d+", told[LINE])
    assert '\n    scores = gc.affine(h, 10, name="scores")' in told[LINE]
    rows = dict(told[ROWS])
    assert rows["output"] == "scores" and rows["bytes"] == "40*N (160 at N = 4)"


def test_a_backward_node_shows_its_rule(page: str) -> None:
    nodes = {node[NAME]: node for node in _data(page)["nodes"]}
    derived = dict(nodes["d_affine_2.weight"][DERIVED])
    assert derived["rule"] == "d_weight = xᵀ · d_out"
    assert derived["shapes"] == "(100, N) · (N, 50) → (100, 50)"
    assert nodes["affine_2"][DERIVED] == []


def test_all_that_is_drawn_can_be_looked_up(page: str) -> None:
    needs("renderer")
    known = {node[NAME] for node in _data(page)["nodes"]}
    drawn = {re.sub("&quot;", '"', name) for name in re.findall(r'data-node="(.*?)"', page)}
    assert drawn <= known
    assert {"affine_1", "affine_1.weight", "d_scores.bias", "x"} <= drawn


@pytest.mark.slow
def test_hostile_names_stay_text_in_the_whole_page() -> None:
    text = _page(_plan(hostile()))
    tags = _Tags()
    tags.feed(text)
    assert tags.found["script"] == 2 and not tags.found.keys() & {"img", "b", "a", "iframe"}
    data = re.search(r'id="data">(.*?)</script>', text, re.S)
    assert data is not None and not set("<>&") & set(data[1])
    names = {node[NAME] for node in json.loads(data[1])["nodes"]}
    assert {printable(name) for name in HOSTILE} <= names


@pytest.mark.slow
def test_of_many_nodes_those_drawn_can_be_searched() -> None:
    plan = _plan(deep(1000))
    text = _page(plan)
    data = _data(text)
    everywhere = {
        node.name for records in plan.graphs.values() for r in records for node in r.graph
    }
    every = everywhere | plan.declared.nodes.keys()
    assert len(data["nodes"]) == 5000 and data["hidden"] == len(every) - 5000
    assert text.count("<tr") == 1002 and len(text) < 4_000_000


@pytest.mark.slow
def test_a_page_has_the_folded_picture_and_the_opened_one() -> None:
    needs("renderer")
    text = _page(_plan(residual(8)))
    graph = text[text.index('id="view-graph"') : text.index('id="view-passes"')]
    folded, opened = graph.split("<figure")[1:]
    (first, back) = re.findall(r'<g class="op fold" data-node="(.*?)"', folded)
    assert "layers above, 7 more times" in folded and "op fold" not in opened
    assert f'data-node="{first}"' in opened and f'data-node="{back}"' in opened
    names = {node[NAME] for node in _data(text)["nodes"]}
    assert {first, back} <= names


@pytest.mark.slow
def test_a_summary_card_represents_its_nodes() -> None:
    text = _page(_plan(deep(251)))
    nodes = _data(text)["nodes"]
    summed = [node for node in nodes if node[CARD] >= 0]
    assert summed
    drawn = set(re.findall(r'<g class="op [a-z]+" data-node="(.*?)"', text))
    assert {nodes[node[CARD]][NAME] for node in summed} <= drawn


@pytest.mark.slow
def test_the_page_of_fifty_layers_is_small() -> None:
    assert len(_page(_plan(deep(50))).encode()) < 2_000_000


def test_slimming_leaves_names_and_text_alone() -> None:
    name = ' fill="#ffffff" font-size="11.00" 123.456'
    escaped = name.replace('"', "&quot;")
    text = f'<text x="12.345" y="1">{escaped}</text>'
    svg = f'<svg width="1pt"><g data-node="{escaped}">{text}</g></svg>'
    assert slim(svg) == svg.replace("<svg", '<svg font-size="11"').replace("12.345", "12.3")
