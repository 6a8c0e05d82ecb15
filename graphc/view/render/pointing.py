"""Groups that link the lines of a drawn card to their nodes, so that a page can point at them.

Renderers have no element for a line of a label.  But each line on a card ends in a space of a size
that no other text has, so the texts before it are joined to the written lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from xml.etree import ElementTree

from graphc.view.render.cards import END, Owned, card_lines
from graphc.view.render.picture import Card, LayerBox, Picture
from graphc.view.render.words import sentence, shown

SVG = "http://www.w3.org/2000/svg"
ADVANCE = 6.62
ABOVE, BELOW = 11.0, 4.5
"""The reach of a line's area above and below its base line."""

Element = ElementTree.Element


def point(root: Element, picture: Picture) -> None:
    """Put the lines about each node of the layers `r0`, `r1`, ... in a group with its name."""
    graph = root.find(f"{{{SVG}}}g")
    groups = {group.get("id"): group for group in root.iter(f"{{{SVG}}}g")}
    for index, box in enumerate(picture.layers):
        group = groups.get(f"r{index}")
        if group is None or graph is None:
            continue
        if [card.side for card in box.cards] != ["input"]:
            graph.append(_heading(group))
        _point_layer(group, box)


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
    said = ""
    for start in range(len(texts) - 1, -1, -1):
        said = (texts[start].text or "") + said
        if said.replace("\xa0", " ").strip() == wanted.strip():
            return texts[start:]
    return []


def _pointed(card: Card, name: str, lines: Sequence[list[Element]], wide: int) -> Element:
    role = "op fold" if card.fold else f"op {card.side}"
    pointed = ElementTree.Element(f"{{{SVG}}}g", {"class": role, "data-node": shown(name)})
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
    return shown(next(f"{r.name}: {r.kind}, {r.what}" for r in card.rows if r.name == name))
