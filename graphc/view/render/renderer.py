"""The renderer, which lays out DOT text: its runs, file formats, and its SVG in our form.

The SVG has classes for colours, words for readers, and groups for nodes.
"""

from __future__ import annotations

import html
import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree

from graphviz.backend import dot_command, execute

from graphc.base.errors import GraphError, RendererMissing
from graphc.files.disk import write_file
from graphc.view.render.dot import ADVANCE, Owned, bytes_text, card_lines
from graphc.view.render.draw import Card, LayerBox, Picture
from graphc.view.render.style import END, LIGHT, sentence, shown, stylesheet

FORMATS = ("svg", "png", "pdf", "dot", "html")
PNG_DPI = 144

INSTALL = """\
install one of these:
    pip install 'graphc-nn[dot]'
    apt-get install graphviz
    brew install graphviz
    winget install Graphviz.Graphviz
  or write .dot or .html, which need no renderer"""
PURE = "graphviz-pure"
PURE_FORMATS = ("svg", "png")


def format_of(target: Path, formats: Sequence[str] = FORMATS, what: str = "") -> str:
    """Return the format that the suffix names; raise GraphError if it is not one of `formats`."""
    format = target.suffix.lower().removeprefix(".")
    if format not in formats:
        raise GraphError(
            f"cannot draw {what}{target.name!r}: the suffix says the format",
            hint=f"one of {', '.join('.' + name for name in formats)}",
        )
    return format


def put(target: Path, data: bytes) -> Path:
    """Write the file, all or nothing; raise GraphError, which says why, if that fails."""
    return write_file(target, [data], GraphError)


class LayoutTooSlow(GraphError):
    """The error for a picture that the renderer did not finish in time."""


@dataclass(frozen=True, slots=True)
class Renderer:
    """A program that takes DOT text; `full` if it makes pdf too."""

    path: Path
    full: bool


def find_renderer(dot: str | Path | None = None) -> Renderer | None:
    """Return the renderer: `dot`, or else GRAPHC_DOT, `dot` on PATH, or graphviz-pure.

    Return None if there is none.  Raise RendererMissing if `dot` or the variable GRAPHC_DOT does
    not name a program.
    """
    asked = str(dot) if dot is not None else os.environ.get("GRAPHC_DOT", "")
    if asked:
        path = shutil.which(asked)
        if path is None:
            who = "dot=" if dot is not None else "GRAPHC_DOT="
            raise RendererMissing(f"{who}{asked!r} does not name a program that runs", hint=INSTALL)
        return _renderer(path)
    path = shutil.which("dot") or shutil.which(PURE) or _pure()
    return None if path is None else _renderer(path)


def need_renderer(format: str, dot: str | Path | None = None) -> Renderer:
    """Return a renderer that makes `format`, or raise RendererMissing with what to install."""
    found = find_renderer(dot)
    if found is None:
        raise RendererMissing(f"{format} needs Graphviz, and no renderer was found", hint=INSTALL)
    if not found.full and format not in PURE_FORMATS:
        raise RendererMissing(
            f"graphviz-pure makes {' and '.join(PURE_FORMATS)}, not {format}", hint=INSTALL
        )
    return found


def _renderer(path: str) -> Renderer:
    return Renderer(Path(path), full=not Path(path).stem.lower().startswith(PURE))


def _pure() -> str | None:
    """Return the program of the package graphviz-pure in this environment, on PATH or not."""
    try:
        files = importlib.metadata.files(PURE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.stem == PURE:
            path = shutil.which(str(Path(str(file.locate())).resolve()))
            if path is not None:
                return path
    return None


def run(renderer: Renderer, source: str, format: str, seconds: float = 10) -> bytes:
    """Return the laid-out picture.

    Raise LayoutTooSlow after `seconds`.  Raise GraphError with the renderer's message if it fails.
    """
    command = dot_command.command("dot", format)
    command[0] = renderer.path
    # Renderers that know this variable stamp a pdf with it instead of the time of day.
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
    try:
        done = execute.run_check(
            command, input=source.encode(), capture_output=True, quiet=True,
            timeout=seconds, env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise LayoutTooSlow(
            f"{renderer.path.name} took longer than {seconds:.0f} s to lay the picture out",
            hint="write .dot, and lay it out by hand",
        ) from None
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error).encode()
        text = said.decode(errors="replace").strip()[-2000:]
        raise GraphError(f"{renderer.path.name} could not make the {format}: {text}") from None
    return bytes(done.stdout)


_NAMES = {colour: name for name, colour in LIGHT.items()}
SMALLEST = 0.65
"""The smallest scale that a picture is shrunk to so that it fits its window."""
MOST_LINES = 12
"""The most nodes that a title names."""
_WAYS = {"flow": "", "gradient": ", gradient", "saved": ", saved for backward"}

SVG = "http://www.w3.org/2000/svg"
ABOVE, BELOW = 11.0, 4.5
"""The reach of a line's area above and below its base line."""

Element = ElementTree.Element
_FONT = re.compile(r' (?:font-family="Courier,monospace"|text-anchor="start"|xml:space="preserve")')
_COLOUR = re.compile(r' (?:fill|stroke)="(?:' + "|".join(LIGHT.values()) + ')"')
_TAG = re.compile(r"<[a-z][^<>]*>")
_PLACE = re.compile(r"\d{2,}\.\d{2,}")
"""Coordinates; a number below ten may be an opacity or the width of a line."""


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
    layer_of = {c.id: c.fold.text if c.fold else c.layer for c in picture.cards}
    for index, box in enumerate(picture.layers):
        nodes = [node for card in box.cards for node in card.nodes][:MOST_LINES]
        lines = [shown(box.text)] if box.fold else [sentence(node) for node in nodes]
        yield f"r{index}", "\n".join(lines)
    for index, link in enumerate(picture.links):
        ways = f"{layer_of[link.source]} to {layer_of[link.target]}{_WAYS[link.kind]}: "
        values = ", ".join(f"{node.name} {node.type}" for node in link.values[:MOST_LINES])
        yield f"e{index}", shown(f"{ways}{values}, {bytes_text(link.values)}")


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
    if tag.startswith(("<svg", "<g")):  # these hold names, and too few colours to matter
        return tag
    tag = _COLOUR.sub("", _FONT.sub("", tag)).replace(' font-size="11.00"', "")
    return _PLACE.sub(lambda number: f"{float(number[0]):.1f}", tag).replace(" />", "/>")
