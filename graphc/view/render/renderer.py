"""Run the renderer (Graphviz), which lays out DOT text, and bring its SVG into our form.

The SVG has classes for colours, words for readers, and groups for nodes.
"""

from __future__ import annotations

import html
import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from xml.etree import ElementTree

from graphviz.backend import dot_command, execute

from graphc.base.errors import GraphError, RendererMissing
from graphc.files.disk import write_file
from graphc.view.render.style import LIGHT, printable, stylesheet

if TYPE_CHECKING:
    from graphc.view.render.layer_drawing import LayerDrawing
    from graphc.view.render.sheet import Sheet

D = TypeVar("D", "LayerDrawing", "Sheet")

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


def find_renderer() -> Renderer | None:
    """Return the renderer: GRAPHC_DOT, `dot` on PATH, or graphviz-pure; None if there is none.

    Raise RendererMissing if the variable GRAPHC_DOT does not name a program.
    """
    asked = os.environ.get("GRAPHC_DOT", "")
    if asked:
        path = shutil.which(asked)
        if path is None:
            message = f"GRAPHC_DOT={asked!r} does not name a program that runs"
            raise RendererMissing(message, hint=INSTALL)
        return _renderer(path)
    path = shutil.which("dot") or shutil.which(PURE) or _pure()
    return None if path is None else _renderer(path)


def need_renderer(format: str) -> Renderer:
    """Return a renderer that makes `format`, or raise RendererMissing with what to install."""
    found = find_renderer()
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
    """Return the laid-out picture; raise LayoutTooSlow after `seconds`, GraphError if it fails."""
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
        output = getattr(error, "stderr", None) or str(error).encode()
        text = output.decode(errors="replace").strip()[-2000:]
        raise GraphError(f"{renderer.path.name} could not make the {format}: {text}") from None
    return bytes(done.stdout)


def lay_out(drawing: D, format: str) -> tuple[D, bytes]:
    """Return the drawing, or else its simpler form, with its file.

    Raise RendererMissing if there is no renderer for the format.  Raise LayoutTooSlow if even the
    simpler form is too tangled.
    """
    renderer = need_renderer(format)
    source = drawing.dot(dpi=PNG_DPI if format == "png" else None)
    try:
        data = run(renderer, source, format, drawing.seconds)
    except LayoutTooSlow:
        if drawing.simpler is None:
            raise
        return lay_out(drawing.simpler(), format)
    return drawing, _finished(data, drawing).encode() if format == "svg" else data


def svg_of(drawing: D) -> str:
    """Return the laid-out drawing as SVG text, themed for light and dark."""
    return lay_out(drawing, "svg")[1].decode()


def write_drawing(drawing: D, path: str | Path, page: Callable[[], str]) -> Path:
    """Write a drawing in the format that the suffix names; `page` makes that of .html."""
    target = Path(path)
    format = format_of(target)
    if format == "html":
        return put(target, page().encode())
    if format == "dot":
        return put(target, drawing.dot().encode())
    return put(target, lay_out(drawing, format)[1])


def missing_note() -> str:
    """Return the note of a page without pictures; "" if there is a renderer."""
    if find_renderer() is not None:
        return ""
    return f"No picture: no Graphviz renderer was found. To have one, {INSTALL}"


def dot_section(drawing: D) -> str:
    """Return the DOT text as a part of a page, to lay out on another machine."""
    return f"\n<h2>DOT</h2>\n<pre>{html.escape(drawing.dot())}</pre>"


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


def _finished(raw: bytes, drawing: D) -> str:
    """Return the SVG for a file, a page or a notebook.

    Comments, which name the renderer's version, are removed.  Generated ids become readable titles.
    Every colour stays, for viewers without CSS, and gets the class that a theme changes.
    """
    root = ElementTree.fromstring(raw)
    drawing.point(root)
    titles = drawing.titles()
    ElementTree.register_namespace("", SVG)
    for element in list(root.iter()):
        _theme(element)
        _name(element, titles)
    _describe(root, drawing.name, drawing.words)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


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
