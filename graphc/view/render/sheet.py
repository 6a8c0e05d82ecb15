"""A plain drawing: boxes of a few lines, arrows between them, and groups around boxes.

It serves for differences and kernels.  Ids of boxes are generated; names are only shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import graphviz

from graphc.view.render.dot import graph_attributes, heading_label
from graphc.view.render.renderer import SVG, Element
from graphc.view.render.style import FONT, LIGHT, Line, Run, lines_markup, printable, short

Look = Literal["equal", "removed", "added", "changed", "renamed", "forward", "backward", "bar"]
"""The style of a box or an arrow; looks never differ by colour alone."""
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
    """True if it does not affect the order of the boxes."""
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

    seconds: float = 3
    """The time limit of the layout; a drawing takes a small part of it, unless it is tangled."""

    @property
    def words(self) -> tuple[str, ...]:
        """The caption as plain text."""
        return tuple("".join(part.text for part in line) for line in self.caption)

    def dot(self, *, dpi: int | None = None) -> str:
        """Return the DOT source; equal sheets give equal text."""
        g = graphviz.Digraph("graphc")
        rows = ["".join(part.markup() for part in line) for line in self.caption]
        g.attr("graph", **graph_attributes(heading_label(self.name, rows), "0.25", "0.3", dpi))
        ink, muted = LIGHT["ink"], LIGHT["muted"]
        g.attr("node", shape="box", fontname=FONT, fontsize="11", fontcolor=ink, margin="0.1")
        g.attr("edge", fontname=FONT, fontsize="10", fontcolor=muted, arrowsize="0.6")
        groups: dict[str, list[Box]] = {}
        for box in self.boxes:
            groups.setdefault(box.group, []).append(box)
        for number, (group, boxes) in enumerate(groups.items()):
            with g.subgraph(name=f"cluster_{number}") if group else nullcontext(g) as frame:
                if group:
                    label = f"<{Run(short(group, 80), bold=True).markup()}>"
                    frame.attr("graph", label=label, **_FRAME)
                for box in boxes:
                    _write_box(frame, box)
        for number, arrow in enumerate(self.arrows):
            _write_arrow(g, f"e{number}", arrow)
        return str(g.source)

    def titles(self) -> Mapping[str, str]:
        """Return the words in place of each generated id."""
        return {box.id: printable(box.title) for box in self.boxes}

    def point(self, root: Element) -> None:
        """Mark each box that is about a single node by the node's name."""
        nodes = {box.id: box.node for box in self.boxes if box.node}
        for group in root.iter(f"{{{SVG}}}g"):
            name = nodes.get(group.get("id", ""))
            if name is not None:
                group.set("data-node", printable(name))


def _write_box(g: Any, box: Box) -> None:
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
