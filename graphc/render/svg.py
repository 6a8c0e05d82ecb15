"""The renderer's SVG made ours: no machine's marks, classes for colours, words for readers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

from graphc.render.picture import Link, Picture
from graphc.render.style import LIGHT, stylesheet
from graphc.render.words import sentence, shown

SVG = "http://www.w3.org/2000/svg"
_NAMES = {colour: name for name, colour in LIGHT.items()}
_WAYS = {"flow": "", "gradient": ", gradient", "saved": ", saved for backward"}


def finish(raw: bytes, picture: Picture) -> str:
    """The SVG of a picture, for a file, a page or a notebook; equal input gives equal text.

    Comments, which name the renderer's version, go; generated ids become readable titles;
    every colour stays, for viewers without CSS, and gets the class that a theme changes.
    """
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(raw)
    titles = dict(_titles(picture))
    for element in list(root.iter()):
        _theme(element)
        _name(element, titles)
    _describe(root, picture)
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
    """Replace the title, a generated id, by words, or take it out where there are none."""
    own = element.attrib.pop("id", "")
    title = element.find(f"{{{SVG}}}title")
    if title is None:
        return
    if own in titles:
        title.text = titles[own]
    else:
        element.remove(title)


def _describe(root: ElementTree.Element, picture: Picture) -> None:
    title = ElementTree.Element(f"{{{SVG}}}title")
    title.text = shown(picture.name)
    style = ElementTree.Element(f"{{{SVG}}}style")
    style.text = stylesheet()
    root.insert(0, title)
    root.insert(1, style)
    title.tail = style.tail = "\n"
    root.set("class", "graphc")
    root.set("role", "img")
    parts = (f"{len(picture.layers):,} layers", *picture.caption)
    root.set("aria-label", shown(f"{picture.name}: {', '.join(parts)}"))


def _titles(picture: Picture) -> Iterator[tuple[str, str]]:
    for box in picture.layers.values():
        yield box.id, shown(f"layer {' + '.join(box.made_of)}: {box.op}")
    cards = {card.id: card for card in picture.cards}
    for index, row in enumerate(picture.rows):
        nodes = [node for id in row for node in cards[id].nodes]
        yield f"r{index}", "\n".join(sentence(node) for node in nodes[:12])
    names = {card.id: card.nodes[-1].name for card in picture.cards}
    for index, link in enumerate(picture.links):
        yield f"e{index}", _link_title(link, names)


def _link_title(link: Link, names: Mapping[str, str]) -> str:
    value = f"{link.node.type}, {link.node.type.bytes_text()} bytes"
    return shown(f"{link.node.name} to {names[link.target]}: {value}{_WAYS[link.kind]}")
