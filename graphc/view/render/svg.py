"""The renderer's SVG in our form: no machine's marks, classes for colours, words for readers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from xml.etree import ElementTree

from graphc.view.render.labels import bytes_text
from graphc.view.render.picture import Picture
from graphc.view.render.pointing import SVG, point
from graphc.view.render.style import LIGHT, stylesheet
from graphc.view.render.words import sentence, shown

_NAMES = {colour: name for name, colour in LIGHT.items()}
SMALLEST = 0.65
"""The smallest scale that a picture is shrunk to so that it fits its window."""
MOST_LINES = 12
"""The most nodes that a title names."""
_WAYS = {"flow": "", "gradient": ", gradient", "saved": ", saved for backward"}


def finish(raw: bytes, picture: Picture) -> str:
    """Return a picture's SVG for a file, a page or a notebook; equal input gives equal text.

    Comments, which name the renderer's version, are removed.  Generated ids become readable titles.
    Every colour stays, for viewers without CSS, and gets the class that a theme changes.
    """
    root = ElementTree.fromstring(raw)
    point(root, picture)
    return dressed(root, dict(_titles(picture)), picture.name, picture.caption)


def dressed(
    root: ElementTree.Element, titles: Mapping[str, str], name: str, caption: Sequence[str]
) -> str:
    """Return the text of a renderer's SVG in our style; `titles` are by generated id."""
    ElementTree.register_namespace("", SVG)
    for element in list(root.iter()):
        _theme(element)
        _name(element, titles)
    _describe(root, name, caption)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _theme(element: ElementTree.Element) -> None:
    classes = element.get("class", "").split()
    for attribute, kind in (("fill", "fill"), ("stroke", "line")):
        colour = element.get(attribute)
        if colour == "transparent":  # the word of older renderers, unknown to strict viewers
            element.set(attribute, "none")
        elif colour in _NAMES:
            classes.append(f"{kind}-{_NAMES[colour]}")
    if classes:
        element.set("class", " ".join(classes))


def _name(element: ElementTree.Element, titles: Mapping[str, str]) -> None:
    """Replace a renderer's title, a generated id, by words; remove it if there are none."""
    own = element.attrib.pop("id", "")
    title = element.find(f"{{{SVG}}}title")
    if title is None or not own:  # an element without an id is ours
        return
    if own in titles:
        title.text = titles[own]
    else:
        element.remove(title)


def _describe(root: ElementTree.Element, name: str, caption: Sequence[str]) -> None:
    title = ElementTree.Element(f"{{{SVG}}}title")
    title.text = shown(name)
    style = ElementTree.Element(f"{{{SVG}}}style")
    style.text = stylesheet()
    root.insert(0, title)
    root.insert(1, style)
    title.tail = style.tail = "\n"
    root.set("class", "graphc")
    root.set("role", "img")
    root.set("aria-label", shown(f"{name}: {', '.join(caption)}"))
    # Wide pictures scroll rather than shrink to text that nobody can read.
    natural = float(root.get("width", "0").removesuffix("pt")) * 4 / 3
    root.set("style", f"min-width: {SMALLEST * natural:.0f}px")


def _titles(picture: Picture) -> Iterator[tuple[str, str]]:
    cards = [card for box in picture.layers for card in box.cards]
    layer_of = {card.id: card.fold.text if card.fold else card.layer for card in cards}
    for index, box in enumerate(picture.layers):
        nodes = [node for card in box.cards for node in card.nodes][:MOST_LINES]
        lines = [shown(box.text)] if box.fold else [sentence(node) for node in nodes]
        yield f"r{index}", "\n".join(lines)
    for index, link in enumerate(picture.links):
        ways = f"{layer_of[link.source]} to {layer_of[link.target]}{_WAYS[link.kind]}: "
        values = ", ".join(f"{node.name} {node.type}" for node in link.values[:MOST_LINES])
        yield f"e{index}", shown(f"{ways}{values}, {bytes_text(link.values)}")
