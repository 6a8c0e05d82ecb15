"""A plain drawing: boxes of a few lines, arrows between them, and groups around boxes.

It serves for differences and kernels.  Boxes and groups have generated ids; names are only
shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import graphviz

from graphc.view.render.dot import graph_attributes, heading_label
from graphc.view.render.renderer import PNG_DPI, SVG, LayoutTooSlow, dressed, need_renderer, run
from graphc.view.render.style import FONT, LIGHT, Line, Run, lines_markup, short, shown

Look = Literal["equal", "removed", "added", "changed", "renamed", "forward", "backward", "bar"]
"""The style of a box or an arrow; looks never differ by colour alone."""
SECONDS = 3
"""The time limit of a layout; a drawing takes a small part of it, unless it is tangled."""

_BOXES: dict[Look, dict[str, str]] = {
    "equal": {"color": LIGHT["edge"], "fillcolor": LIGHT["card"], "style": "rounded,filled"},
    "removed": {"style": "rounded,filled,dashed", "penwidth": "1.6"},
    "added": {"style": "rounded,filled", "penwidth": "2.2"},
    "changed": {"style": "rounded,filled", "peripheries": "2"},
    "renamed": {"style": "rounded,filled", "penwidth": "1.2"},
    "forward": {"style": "rounded,filled"},
    "backward": {"style": "rounded,filled,dashed"},
    "bar": {"shape": "plaintext", "style": "", "margin": "0"},
}
_ARROWS: dict[Look, dict[str, str]] = {
    "equal": {"color": LIGHT["muted"], "penwidth": "0.8"},
    "removed": {"color": LIGHT["removed"], "style": "dashed", "penwidth": "1.2"},
    "added": {"color": LIGHT["added"], "penwidth": "1.8"},
    "bar": {"style": "invis", "weight": "4"},
}

_FRAME = {
    "style": "rounded",
    "bgcolor": LIGHT["frame"],
    "color": LIGHT["edge"],
    "labeljust": "l",
    "margin": "8",
}


@dataclass(frozen=True, slots=True)
class Box:
    """Some lines of text; `node` is set if they are about a single node."""

    id: str
    lines: tuple[Line, ...]
    look: Look
    title: str
    node: str = ""
    group: str = ""
    """The heading of the frame around it, if any."""


@dataclass(frozen=True, slots=True)
class Arrow:
    """An arrow from a box to one that reads it; it points upwards if drawn `against` the order."""

    source: str
    target: str
    look: Look = "equal"
    against: bool = False
    free: bool = False
    """Whether it does not affect the order of the boxes."""
    label: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """The whole drawing with its heading."""

    name: str
    caption: tuple[Line, ...]
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    simpler: Callable[[], Sheet] | None = None
    """The drawing to use instead if this is too tangled to lay out in time."""

    def words(self) -> tuple[str, ...]:
        """Return the caption as plain text."""
        return tuple("".join(part.text for part in line) for line in self.caption)


def sheet_dot(sheet: Sheet, *, dpi: int | None = None) -> str:
    """Return the DOT source; equal sheets give equal text."""
    g = graphviz.Digraph("graphc")
    rows = ["".join(part.markup() for part in line) for line in sheet.caption]
    g.attr("graph", **graph_attributes(heading_label(sheet.name, rows), "0.25", "0.3", dpi))
    g.attr("node", shape="box", fontname=FONT, fontsize="11", fontcolor=LIGHT["ink"], margin="0.1")
    g.attr("edge", fontname=FONT, fontsize="10", fontcolor=LIGHT["muted"], arrowsize="0.6")
    groups: dict[str, list[Box]] = {}
    for box in sheet.boxes:
        groups.setdefault(box.group, []).append(box)
    for number, (group, boxes) in enumerate(groups.items()):
        if group:
            with g.subgraph(name=f"cluster_{number}") as frame:
                frame.attr(
                    "graph", label=f"<{Run(short(group, 80), bold=True).markup()}>", **_FRAME
                )
                _write_boxes(frame, boxes)
        else:
            _write_boxes(g, boxes)
    for number, arrow in enumerate(sheet.arrows):
        _write_arrow(g, f"e{number}", arrow)
    return str(g.source)


def _write_boxes(g: Any, boxes: list[Box]) -> None:
    for box in boxes:
        colours = {}
        if box.look not in ("equal", "bar"):
            colours = {"color": LIGHT[box.look], "fillcolor": LIGHT[f"{box.look}-fill"]}
        label = f"<{lines_markup(box.lines)}>"
        marks = {"id": box.id, "class": f"op {box.look}"}
        g.node(box.id, label=label, **colours, **_BOXES[box.look], **marks)


def _write_arrow(g: Any, id: str, arrow: Arrow) -> None:
    attributes = {**_ARROWS[arrow.look], "id": id, "class": f"read {arrow.look}"}
    ends = [arrow.source, arrow.target]
    if arrow.against:
        attributes["dir"] = "back"
        ends.reverse()
    if arrow.free:
        attributes["constraint"] = "false"
    if arrow.label:
        attributes["label"] = arrow.label
    g.edge(*ends, **attributes)


def sheet_file(sheet: Sheet, format: str, *, dot: str | Path | None = None) -> bytes:
    """Return the drawing laid out, or else its simpler form.

    Raise RendererMissing if there is no renderer for the format.  Raise LayoutTooSlow if even the
    simpler form is too tangled.
    """
    renderer = need_renderer(format, dot)
    source = sheet_dot(sheet, dpi=PNG_DPI if format == "png" else None)
    try:
        data = run(renderer, source, format, SECONDS)
    except LayoutTooSlow:
        if sheet.simpler is None:
            raise
        return sheet_file(sheet.simpler(), format, dot=dot)
    return _finish(data, sheet).encode() if format == "svg" else data


def sheet_svg(sheet: Sheet, *, dot: str | Path | None = None) -> str:
    """Return the drawing as SVG text, themed for light and dark."""
    return sheet_file(sheet, "svg", dot=dot).decode()


def _finish(raw: bytes, sheet: Sheet) -> str:
    root = ElementTree.fromstring(raw)
    nodes = {box.id: box.node for box in sheet.boxes if box.node}
    for group in root.iter(f"{{{SVG}}}g"):
        name = nodes.get(group.get("id", ""))
        if name is not None:
            group.set("data-node", shown(name))
    titles = {box.id: shown(box.title) for box in sheet.boxes}
    return dressed(root, titles, sheet.name, sheet.words())
