"""The drawing of a graph by layers: its arguments, its titles, and its marks for nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from xml.etree import ElementTree

from graphc.ir.graph import Graph
from graphc.view.render.dot import ADVANCE, Owned, bytes_text, card_lines, dot_text
from graphc.view.render.draw import ENDS, LAYER_LIMIT, Card, LayerBox, Link, Picture, picture
from graphc.view.render.loops import opened
from graphc.view.render.renderer import SVG, Element
from graphc.view.render.style import END, printable, sentence

MOST_LINES = 12
"""The most nodes that a title names."""
MOST_WORDS = 2000
"""The most lines of a picture in words."""
_WAYS = {
    "flow": "",
    "gradient": ", gradient",
    "saved": ", saved for backward",
    "carried": ", carried to the next step",
}
_VERBS = {
    "flow": "goes to",
    "gradient": "gradient goes to",
    "saved": "saved for backward of",
    "carried": "at the next step goes to",
}
ABOVE, BELOW = 11.0, 4.5
"""The reach of a line's area above and below its base line."""


@dataclass(frozen=True)
class LayerDrawing:
    """The drawing of a graph; `backward` is the compiled graph, gradients included, if any."""

    graph: Graph
    backward: Graph | None = None
    fold: bool = True
    """True if a repeated block of layers is drawn once."""
    most_layers: int = LAYER_LIMIT
    steps: bool = True
    """True if the steps of loops are drawn."""

    @cached_property
    def picture(self) -> Picture:
        """The cards and arrows of the drawing."""
        return picture(
            self.graph,
            self.backward,
            fold=self.fold,
            most_layers=self.most_layers,
            steps=self.steps,
        )

    @cached_property
    def graphs(self) -> tuple[Graph, ...]:
        """The graphs whose nodes the drawing shows: the compiled one first, loops opened."""
        declared = opened(self.graph)
        compiled = () if self.backward is None else (opened(self.backward, declared).graph,)
        return (*compiled, declared.graph)

    @property
    def name(self) -> str:
        """The heading of the drawing."""
        return self.picture.name

    @property
    def words(self) -> Sequence[str]:
        """The lines of text below the heading of the drawing."""
        return self.picture.caption

    @property
    def seconds(self) -> float:
        """The time limit of the layout; ten are ample for the usual few dozen layers."""
        return 10 + len(self.picture.layers) / 50

    @property
    def simpler(self) -> Callable[[], LayerDrawing] | None:
        """A graph too tangled to lay out in time without the steps of loops, or its two ends."""
        if self.picture.loops:
            return lambda: replace(self, steps=False)
        if self.most_layers <= 2 * ENDS or len(self.picture.layers) <= 2 * ENDS:
            return None
        return lambda: replace(self, most_layers=2 * ENDS)

    def dot(self, *, dpi: int | None = None) -> str:
        """Return the DOT source."""
        return dot_text(self.picture, dpi=dpi)

    def titles(self) -> Mapping[str, str]:
        """Return the words in place of each generated id."""
        return dict(_titles(self.picture))

    def point(self, root: Element) -> None:
        """Put the lines about each node of the layers `r0`, `r1`, ... in a group with its name."""
        graph = root.find(f"{{{SVG}}}g")
        groups = {group.get("id"): group for group in root.iter(f"{{{SVG}}}g")}
        for index, box in enumerate(self.picture.layers):
            group = groups.get(f"r{index}")
            if group is None or graph is None:
                continue
            if [card.side for card in box.cards] != ["input"]:
                graph.append(_heading(group))
            _point_layer(group, box)

    def text(self) -> str:
        """Return the words on the cards and arrows, cut if they are many."""
        lines = list(_words(self.picture))
        hidden = len(lines) - MOST_WORDS
        if hidden > 0:
            lines[MOST_WORDS:] = [f"... {hidden:,} more lines"]
        return "\n".join(map(printable, lines))


def _titles(picture: Picture) -> Iterator[tuple[str, str]]:
    layer_of = {c.id: c.fold.text if c.fold else c.layer for c in picture.cards}
    for index, box in enumerate(picture.layers):
        nodes = [node for card in box.cards for node in card.nodes][:MOST_LINES]
        lines = [printable(box.text)] if box.fold else [sentence(node) for node in nodes]
        yield f"r{index}", "\n".join(lines)
    for index, link in enumerate(picture.links):
        ways = f"{layer_of[link.source]} to {layer_of[link.target]}{_WAYS[link.kind]}: "
        values = ", ".join(f"{node.name} {node.type}" for node in link.values[:MOST_LINES])
        yield f"e{index}", printable(f"{ways}{values}, {bytes_text(link.values, link.steps)}")


def _heading(group: Element) -> Element:
    """Return a layer's first text, removed from its place to be drawn last, above any arrows."""
    heading = ElementTree.Element(f"{{{SVG}}}g", {"class": "heading"})
    text = group.find(f"{{{SVG}}}text")
    if text is not None:
        group.remove(text)
        text.tail = ""
        heading.append(text)
    heading.tail = "\n"
    return heading


def _point_layer(group: Element, box: LayerBox) -> None:
    drawn = _drawn_lines(group, [line for card in box.cards for line in card_lines(card)])
    for card in box.cards:
        lines = card_lines(card)
        texts = [next(drawn, []) for _ in lines]
        wide = max(sum(len(run.text) for run in line) for _, line in lines)
        pairs = zip(lines, texts, strict=True)
        for name, some in groupby(pairs, key=lambda pair: pair[0][0]):
            found = [text for _, text in some]
            if name and all(found):
                group.append(_pointed(card, name, found, wide))
                for text in found:
                    for element in text:
                        group.remove(element)


def _drawn_lines(group: Element, lines: Sequence[Owned]) -> Iterator[list[Element]]:
    """Yield the text elements of each line in order; an empty list if a line is not as written."""
    before: list[Element] = []
    expected = iter(lines)
    for text in list(group.iter(f"{{{SVG}}}text")):
        if float(text.get("font-size", "0")) != END:
            before.append(text)
            continue
        wanted = "".join(run.text for run in next(expected, ("", ()))[1])
        yield _ending_in(before, wanted.rstrip())
        before = []


def _ending_in(texts: list[Element], wanted: str) -> list[Element]:
    """Return the last texts that together form the wanted text."""
    joined = ""
    for start in range(len(texts) - 1, -1, -1):
        joined = (texts[start].text or "") + joined
        if joined.replace("\xa0", " ").strip() == wanted.strip():
            return texts[start:]
    return []


def _pointed(card: Card, name: str, lines: Sequence[list[Element]], wide: int) -> Element:
    role = "op fold" if card.fold else f"op {card.side}"
    pointed = ElementTree.Element(f"{{{SVG}}}g", {"class": role, "data-node": printable(name)})
    title = ElementTree.SubElement(pointed, f"{{{SVG}}}title")
    title.text = _title(card, name)
    left = min(float(text.get("x", "0")) for line in lines for text in line) - 3
    top = float(lines[0][0].get("y", "0")) - ABOVE
    bottom = float(lines[-1][0].get("y", "0")) + BELOW
    area = {"x": left, "y": top, "width": ADVANCE * wide + 10, "height": bottom - top}
    numbers = {key: f"{value:.2f}" for key, value in area.items()}
    ElementTree.SubElement(pointed, f"{{{SVG}}}rect", {"class": "area", "fill": "none", **numbers})
    for line in lines:
        pointed.extend(line)
    pointed.tail = "\n"
    return pointed


def _title(card: Card, name: str) -> str:
    if card.fold is not None:
        return card.fold.text
    found = next((node for node in card.nodes if node.name == name), None)
    if found is not None:
        return sentence(found)
    return printable(next(f"{r.name}: {r.kind}, {r.what}" for r in card.rows if r.name == name))


def _words(picture: Picture) -> Iterator[str]:
    users: dict[str, list[Link]] = {}
    layer_of = {card.id: box for box in picture.layers for card in box.cards}
    for link in picture.links:
        users.setdefault(link.source, []).append(link)
    for box in picture.layers:
        yield box.text
        for card in box.cards:
            texts = ("".join(run.text for run in line).strip() for _, line in card_lines(card))
            yield f"  {card.side}: {'; '.join(texts)}"
            for link in users.get(card.id, ()):
                target = layer_of[link.target]
                name = target.text if target.fold else target.name
                yield f"    {_VERBS[link.kind]} {name}, {bytes_text(link.values, link.steps)}"
