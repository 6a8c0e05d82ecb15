"""Bring the SVG of the renderer into our form, and make it smaller for a page.

The SVG has classes for colours, words for readers, and groups for nodes.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from xml.etree import ElementTree

from graphc.view.render.scene import Passage, Scene
from graphc.view.render.style import (
    ADVANCE_11,
    END,
    LIGHT,
    Line,
    line_text,
    printable,
    stylesheet,
)

_NAMES = {colour: name for name, colour in LIGHT.items()}
SMALLEST = 0.65
"""The smallest scale that a picture is shrunk to so that it fits its window."""

SVG = "http://www.w3.org/2000/svg"
Element = ElementTree.Element
_FONT = re.compile(r' (?:font-family="Courier,monospace"|text-anchor="start"|xml:space="preserve")')
_COLOUR = re.compile(r' (?:fill|stroke)="(?:' + "|".join(LIGHT.values()) + ')"')
_TAG = re.compile(r"<[a-z][^<>]*>")
_PLACE = re.compile(r"\d{2,}\.\d{2,}")
"""Coordinates; a number below ten may be an opacity or the width of a line."""
ABOVE, BELOW = 11.0, 4.5
"""The reach of a line's area above and below its base line."""


def finished(raw: bytes, scene: Scene) -> str:
    """Return the SVG for a file, a page or a notebook.

    Comments, which name the renderer's version, are removed.  Generated ids become readable titles.
    Every colour stays, for viewers without CSS, and gets the class that a theme changes.
    """
    root = ElementTree.fromstring(raw)
    _point(root, scene)
    titles = scene.titles
    ElementTree.register_namespace("", SVG)
    for element in list(root.iter()):
        _theme(element)
        _name(element, titles)
    _describe(root, scene.name, scene.words)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _point(root: Element, scene: Scene) -> None:
    """Mark what is about one node by its name: a box as a whole, or lines put in a group."""
    graph = root.find(f"{{{SVG}}}g")
    groups = {group.get("id"): group for group in root.iter(f"{{{SVG}}}g")}
    for box in scene.boxes:
        group = groups.get(box.id)
        if group is None or graph is None:
            continue
        if box.node:
            group.set("data-node", printable(box.node))
        if box.headed:
            graph.append(_heading(group))
        drawn = _drawn_lines(group, box.lines)
        for passage in box.passages:
            texts = [next(drawn, []) for _ in passage.lines]
            if passage.node and all(texts):
                group.append(_pointed(passage, texts))
                for element in (part for line in texts for part in line):
                    group.remove(element)


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


def _drawn_lines(group: Element, lines: Sequence[Line]) -> Iterator[list[Element]]:
    """Yield the text elements of each line in order; an empty list if a line is not as written."""
    before: list[Element] = []
    expected = iter(lines)
    for text in list(group.iter(f"{{{SVG}}}text")):
        if float(text.get("font-size", "0")) != END:
            before.append(text)
            continue
        yield _ending_in(before, line_text(next(expected, ())).strip())
        before = []


def _ending_in(texts: list[Element], wanted: str) -> list[Element]:
    """Return the last texts that together form the wanted text."""
    joined = ""
    for start in range(len(texts) - 1, -1, -1):
        joined = (texts[start].text or "") + joined
        if joined.replace("\xa0", " ").strip() == wanted:
            return texts[start:]
    return []


def _pointed(passage: Passage, lines: Sequence[list[Element]]) -> Element:
    marks = {"class": passage.role, "data-node": printable(passage.node)}
    pointed = ElementTree.Element(f"{{{SVG}}}g", marks)
    title = ElementTree.SubElement(pointed, f"{{{SVG}}}title")
    title.text = passage.title
    left = min(float(text.get("x", "0")) for line in lines for text in line) - 3
    top = float(lines[0][0].get("y", "0")) - ABOVE
    bottom = float(lines[-1][0].get("y", "0")) + BELOW
    area = {"x": left, "y": top, "width": ADVANCE_11 * passage.width + 10, "height": bottom - top}
    numbers = {key: f"{value:.2f}" for key, value in area.items()}
    ElementTree.SubElement(pointed, f"{{{SVG}}}rect", {"class": "area", "fill": "none", **numbers})
    for line in lines:
        pointed.extend(line)
    pointed.tail = "\n"
    return pointed


def _theme(element: Element) -> None:
    classes = element.get("class", "").split()
    for attribute, kind in (("fill", "fill"), ("stroke", "line")):
        colour = element.get(attribute)
        if colour == "transparent":  # the word of older renderers, unknown to strict viewers
            element.set(attribute, "none")
        elif colour in _NAMES:
            classes.append(f"{kind}-{_NAMES[colour]}")
    if classes:
        element.set("class", " ".join(classes))


def _name(element: Element, titles: Mapping[str, str]) -> None:
    """Replace a renderer's title, a generated id, by words; remove it if there are none."""
    own = element.attrib.pop("id", "")
    title = element.find(f"{{{SVG}}}title")
    if title is None or not own:  # an element without an id is ours
        return
    if own in titles:
        title.text = titles[own]
    else:
        element.remove(title)


def _describe(root: Element, name: str, caption: Sequence[str]) -> None:
    title = ElementTree.Element(f"{{{SVG}}}title")
    title.text = printable(name)
    style = ElementTree.Element(f"{{{SVG}}}style")
    style.text = stylesheet()
    root.insert(0, title)
    root.insert(1, style)
    title.tail = style.tail = "\n"
    root.set("class", "graphc")
    root.set("role", "img")
    root.set("aria-label", printable(f"{name}: {', '.join(caption)}"))
    # Wide pictures scroll rather than shrink to text that nobody can read.
    natural = float(root.get("width", "0").removesuffix("pt")) * 4 / 3
    root.set("style", f"min-width: {SMALLEST * natural:.0f}px")


def slim(svg: str) -> str:
    """Return the same picture for a page whose CSS has a class for every colour of the style.

    Only tags change, where text is escaped: there `<`, `>` and `"` are only themselves, and no name
    can look like an attribute.
    """
    style = stylesheet()
    for written in (style, html.escape(style, quote=False)):
        svg = svg.replace(f"<style>{written}</style>\n", "")
    svg = svg.replace("<svg ", '<svg font-size="11" ', 1)
    return _TAG.sub(lambda tag: _slim_tag(tag[0]), svg)


def _slim_tag(tag: str) -> str:
    if tag.startswith(("<svg", "<g")):  # these contain names, and too few colours to matter
        return tag
    tag = _COLOUR.sub("", _FONT.sub("", tag)).replace(' font-size="11.00"', "")
    return _PLACE.sub(lambda number: f"{float(number[0]):.1f}", tag).replace(" />", "/>")
