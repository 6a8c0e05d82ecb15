"""A scene: boxes with lines of text, arrows between them, frames around them; and its DOT text.

All pictures that Graphviz lays out are scenes.  Ids are generated; names are only shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import graphviz

from graphc.view.render.draw import Picture
from graphc.view.render.style import (
    FONT,
    LIGHT,
    Line,
    Run,
    line_markup,
    line_text,
    lines_markup,
    short,
)

Look = Literal[
    "equal", "removed", "added", "changed", "renamed", "forward", "backward", "bar", "layer"
]
"""The style of a box; looks never differ by colour alone."""
_BOXES: Mapping[Look, Mapping[str, str]] = {
    "equal": {"color": LIGHT["edge"], "fillcolor": LIGHT["card"]},
    "removed": {"style": "rounded,filled,dashed", "penwidth": "1.6"},
    "added": {"penwidth": "2.2"},
    "changed": {"peripheries": "2"},
    "renamed": {"penwidth": "1.2"},
    "forward": {},
    "backward": {"style": "rounded,filled,dashed"},
    "bar": {"shape": "plaintext", "style": "", "margin": "0"},
    "layer": {"shape": "plain", "style": "", "margin": "0"},
}
_ARROWS: Mapping[str, Mapping[str, str]] = {
    "equal": {"color": LIGHT["muted"], "penwidth": "0.8"},
    "removed": {"color": LIGHT["removed"], "style": "dashed", "penwidth": "1.2"},
    "added": {"color": LIGHT["added"], "penwidth": "1.8"},
    "bar": {"style": "invis", "weight": "4"},
    "flow": {"color": LIGHT["forward"], "penwidth": "1.4", "weight": "8"},
    "gradient": {"color": LIGHT["backward"], "penwidth": "1.4", "weight": "4", "style": "dashed"},
    "saved": {"color": LIGHT["saved"], "penwidth": "1.6", "weight": "0", "style": "dotted"},
    "carried": {"penwidth": "1.4", "weight": "0", "style": "dashed"},
}
_READS = ("equal", "removed", "added", "bar")
_FRAMES: Mapping[str, Mapping[str, str]] = {
    "block": {"style": "rounded,dashed", "bgcolor": LIGHT["block"], "color": LIGHT["edge"]},
    "loop": {"bgcolor": LIGHT["block"], "color": LIGHT["forward"], "penwidth": "1.4"},
    "kernel": {"bgcolor": LIGHT["frame"], "color": LIGHT["edge"], "margin": "8"},
}
_FRAME = {"style": "rounded", "labeljust": "l", "margin": "10"}
_GRAPH = {
    "labelloc": "t",
    "fontname": FONT,
    "fontsize": "11",
    "fontcolor": LIGHT["ink"],
    "bgcolor": LIGHT["paper"],
    "newrank": "true",
    "pad": "0.2",
}
_BOX = {"shape": "box", "style": "rounded,filled", "margin": "0.1", "fontname": FONT}
_ARROW = {"fontname": FONT, "fontsize": "10", "fontcolor": LIGHT["saved"]}


@dataclass(frozen=True, slots=True)
class Passage:
    """Lines in a box that are about a node, or about none if `node` is empty."""

    node: str
    lines: tuple[Line, ...]
    role: str
    title: str
    width: int
    """The characters that are pointed at."""


@dataclass(frozen=True, slots=True)
class Box:
    """Some lines of text; `node` is set if they are about a single node."""

    id: str
    lines: tuple[Line, ...]
    look: Look
    title: str
    node: str = ""
    kind: str = ""
    """The op of a layer."""
    markup: str = ""
    """The label, if it is not the lines alone."""
    passages: tuple[Passage, ...] = ()
    headed: bool = False
    """True if the first text is a heading, which no arrow covers."""

    @property
    def role(self) -> str:
        """The classes of the drawn box."""
        return f"layer op-{self.kind}" if self.look == "layer" else f"op {self.look}"


@dataclass(frozen=True, slots=True)
class Frame:
    """Boxes and other frames with a line around them, and a heading."""

    heading: Line
    items: Sequence[Box | Frame]
    look: str


@dataclass(frozen=True, slots=True)
class Arrow:
    """An arrow from a box to one that reads it; it points upwards if drawn `against` the order."""

    source: str
    target: str
    look: str = "equal"
    against: bool = False
    free: bool = False
    """True if it does not affect the order of the boxes."""
    label: str = ""
    beside: bool = False
    """True if the label takes no room of its own."""
    colour: str = ""
    title: str = ""


NOTHING = Picture("", (), (), ())
"""No layers."""


@dataclass(frozen=True)
class Scene:
    """The whole drawing with its heading."""

    name: str
    caption: tuple[Line, ...]
    items: Sequence[Box | Frame]
    arrows: Sequence[Arrow]
    legend: Line = ()
    """A line below the caption that only the eye needs."""
    simpler: Callable[[], Scene] | None = None
    """The drawing to use instead if this is too tangled to lay out in time."""
    seconds: float = 3
    """The time limit of the layout; a drawing takes a small part of it, unless it is tangled."""
    spacing: tuple[str, str, str] = ("0.25", "0.3", "0.6")
    """The least space between boxes and between their rows, and the size of arrow heads."""
    picture: Picture = NOTHING
    """The layers that it shows."""

    @property
    def boxes(self) -> tuple[Box, ...]:
        """All boxes, those in frames included."""
        return tuple(boxes_in(self.items))

    @property
    def words(self) -> tuple[str, ...]:
        """The caption as plain text."""
        return tuple(map(line_text, self.caption))

    @property
    def titles(self) -> Mapping[str, str]:
        """The words in place of each generated id."""
        arrows = {f"e{i}": arrow.title for i, arrow in enumerate(self.arrows) if arrow.title}
        return {box.id: box.title for box in self.boxes} | arrows

    def dot(self, *, dpi: int | None = None) -> str:
        """Return the DOT source; equal scenes give equal text.  `dpi` is for pixel formats."""
        g = graphviz.Digraph("graphc")
        own = {} if dpi is None else {"dpi": str(dpi)}
        boxes, rows, heads = self.spacing
        g.attr("graph", **_GRAPH, nodesep=boxes, ranksep=rows, **own, label=self._heading())
        g.attr("node", **_BOX, fontsize="11", fontcolor=LIGHT["ink"])
        g.attr("edge", **_ARROW, arrowsize=heads)
        _write_items(g, self.items, count())
        for number, arrow in enumerate(self.arrows):
            _write_arrow(g, f"e{number}", arrow)
        return str(g.source)

    def _heading(self) -> str:
        """Return the name in large letters, and the other lines below it."""
        title = f'<font point-size="15">{Run(short(self.name, 60), bold=True).markup()}</font>'
        rows = [title, *map(line_markup, (*self.caption, *filter(None, [self.legend])))]
        cells = "".join(f"<tr><td>{row}</td></tr>" for row in rows)
        return f'<<table border="0" cellspacing="0" cellpadding="2">{cells}</table>>'


def boxes_in(items: Sequence[Box | Frame]) -> Iterator[Box]:
    """Yield all boxes, those in frames included."""
    for item in items:
        if isinstance(item, Box):
            yield item
        else:
            yield from boxes_in(item.items)


def _write_items(g: Any, items: Sequence[Box | Frame], numbers: Iterator[int]) -> None:
    for item in items:
        if isinstance(item, Box):
            _write_box(g, item)
            continue
        with g.subgraph(name=f"cluster_{next(numbers)}") as frame:
            label = f"<{line_markup(item.heading)}>"
            frame.attr("graph", **{**_FRAME, **_FRAMES[item.look]}, label=label)
            _write_items(frame, item.items, numbers)


def _write_box(g: Any, box: Box) -> None:
    colours = {}
    if f"{box.look}-fill" in LIGHT:
        colours = {"color": LIGHT[box.look], "fillcolor": LIGHT[f"{box.look}-fill"]}
    label = f"<{box.markup or lines_markup(box.lines)}>"
    marks = {"id": box.id, "class": box.role}
    g.node(box.id, label=label, **colours, **_BOXES[box.look], **marks)


def _write_arrow(g: Any, id: str, arrow: Arrow) -> None:
    role = f"read {arrow.look}" if arrow.look in _READS else arrow.look
    attributes = {**_ARROWS[arrow.look], "id": id, "class": role}
    ends = [arrow.source, arrow.target]
    if arrow.against:
        attributes["dir"] = "back"
        ends.reverse()
    if arrow.free:
        attributes["constraint"] = "false"
    if arrow.colour:
        attributes |= {"color": LIGHT[arrow.colour], "fontcolor": LIGHT[arrow.colour]}
    if arrow.label:
        attributes["xlabel" if arrow.beside else "label"] = arrow.label
    g.edge(*ends, **attributes)
