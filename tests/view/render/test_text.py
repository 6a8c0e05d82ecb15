"""DOT, SVG and page as text: the same for the same graph, valid, and inert."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

import graphc as gc
from graphc.view.render.layer_scene import graph_scene
from graphc.view.render.style import DARK, LIGHT, printable, short
from tests.view.render.graphs import (
    HOSTILE,
    compiled,
    digits,
    hostile,
    html_text,
    render_graph,
    svg_text,
)

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.slow
def test_equal_graphs_give_equal_bytes(tmp_path: Path) -> None:
    for suffix in ("svg", "png", "dot", "html"):
        files = [tmp_path / f"{i}.{suffix}" for i in range(2)]
        for file in files:
            graph, backward = compiled(digits())
            render_graph(graph, file, backward=backward)
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_hash_seed() -> None:
    program = (
        "from tests.view.render.graphs import *;"
        "from graphc.view.render.layer_scene import graph_scene;"
        "print(graph_scene(*compiled(digits())).dot())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_the_svg_names_no_machine_and_no_renderer() -> None:
    graph, backward = compiled(digits())
    text = svg_text(graph, backward=backward)
    assert "<!--" not in text and "graphviz" not in text.lower() and "/" + "home" not in text
    assert str(Path(__file__).parent) not in text


def test_the_svg_speaks_to_readers_and_themes() -> None:
    graph, backward = compiled(digits())
    root = ElementTree.fromstring(svg_text(graph, backward=backward))
    assert root.get("role") == "img"
    assert (root.get("aria-label") or "").startswith("digits: 12,360 parameters")
    assert root[0].tag == f"{SVG}title" and root[0].text == "digits"
    style = root[1].text or ""
    assert "prefers-color-scheme: dark" in style
    classes = {name for e in root.iter() for name in e.get("class", "").split()}
    kinds = {"flow", "gradient", "saved", "layer", "op-affine", "op-softmax_loss".replace("_", "-")}
    assert kinds <= classes
    assert {"fill-forward-fill", "line-backward", "fill-ink", "fill-paper"} <= classes
    titles = {e.text for e in root.iter(f"{SVG}title")}
    assert "x to affine_1: x float32[N, 64], 256*N bytes" in titles
    assert any(t and t.startswith("d_affine_2.weight: matmul, float32[100, 50]") for t in titles)
    assert not any(re.fullmatch(r"r\d+|cluster_\d+|r\d+(:\w+)*->.*", t or "") for t in titles)


def test_every_drawn_colour_has_a_dark_one() -> None:
    assert LIGHT.keys() == DARK.keys()
    assert len(set(LIGHT.values())) == len(LIGHT)
    graph, backward = compiled(digits())
    dot = graph_scene(graph, backward).dot()
    assert set(re.findall(r"#[0-9a-fA-F]+\b", dot)) <= set(LIGHT.values())


@pytest.mark.parametrize("ground", ["paper", "frame", "block"])
@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_has_the_contrast_that_wcag_asks_for(scheme: dict[str, str], ground: str) -> None:
    for ink in ("ink", "muted", "forward", "backward", "saved"):
        assert _contrast(scheme[ink], scheme[ground]) >= 4.5, ink


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_on_cards_has_that_contrast_too(scheme: dict[str, str]) -> None:
    for side in ("input", "forward", "backward", "wrt"):
        for ink in ("ink", "muted"):
            assert _contrast(scheme[ink], scheme[f"{side}-fill"]) >= 4.5, (side, ink)
    assert _contrast(scheme["mark"], scheme["forward-fill"]) >= 4.5


def _contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2.2, success criterion 1.4.3."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_hostile_names_stay_text_in_the_svg() -> None:
    graph, backward = compiled(hostile())
    text = svg_text(graph, backward=backward, fold=False)
    root = ElementTree.fromstring(text)
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {
        "svg",
        "g",
        "title",
        "style",
        "rect",
        "polygon",
        "path",
        "text",
        "ellipse",
        "polyline",
    }
    assert not any(key.startswith("on") or "href" in key for e in root.iter() for key in e.attrib)
    said = " ".join(e.text or "" for e in root.iter(f"{SVG}text"))
    for name in ('a"b', "a:b", "back\\N\\G\\\\", "&amp;", "new\\nline", "\\u202eevil", "]]>"):
        assert name in said, name


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.keys: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.keys += [key for key, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize("dot", [None, "missing"])
def test_hostile_names_stay_text_in_the_page(
    dot: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dot is not None:
        monkeypatch.setattr("graphc.view.render.renderer.find_renderer", lambda: None)
    graph, backward = compiled(hostile())
    page = _Page()
    page.feed(html_text(graph, backward=backward))
    assert not {"img", "a", "b", "link", "iframe"} & set(page.tags)
    assert page.tags.count("script") == 2  # the data, and the page's own
    assert not any(key.startswith("on") or "href" in key or key == "src" for key in page.keys)
    words = "".join(page.words)
    for name in HOSTILE:
        assert printable(name) in words


def test_the_page_has_the_layers_as_a_table() -> None:
    page = html_text(digits().graph())
    assert page.startswith("<!DOCTYPE html>")
    row = re.search(r'<tr[^>]*><th scope="row">affine_1</th>(.*?)</tr>', page)
    assert row is not None
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row[1])
    assert cells[:4] == [
        "affine",
        "float32[N, 100]",
        "affine_1.weight (64, 100)<br>affine_1.bias (100,)",
        "6,500",
    ]
    assert re.match(r"graphs\.py:\d+ in digits", cells[4])


def test_names_are_shown_on_one_line_of_bounded_width() -> None:
    assert printable("a\nb\t\x00\u202e\ud800") == "a\\nb\\t\\x00\\u202e\\ud800"
    assert len(short("x" * 500)) <= 36
    assert short("affine_1") == "affine_1"


def test_a_net_without_outputs_is_drawn_as_far_as_it_is_declared() -> None:
    net = gc.Net("begun")
    gc.relu(net.input("x", (gc.N, 2)))
    assert "relu_1" in svg_text(net.graph())
    assert "empty" in svg_text(gc.Net("empty").graph())
