"""A picture as DOT text: the lines on cards, the cards in layers; all ids are generated."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import graphviz

from graphc.ir.graph import Node
from graphc.ir.tensor_type import shape_text
from graphc.view.cost import value_bytes
from graphc.view.render.draw import Card, LayerBox, Link, Picture, Row, Side
from graphc.view.render.style import FONT, LIGHT, Line, Run, lines_markup, muted, short, width

MOST_LINES = 12
"""The most lines of one kind; further ones are summed up in one line."""
NAME_WIDTH = 24
ADVANCE = 6.62
"""The width in points of a character of 11 points, in every monospaced font."""

Cells = tuple[str, Run, Run, Run]
"""The node that a row of a table is about, and its three columns."""
_NOTHING = Run("")

Owned = tuple[str, Line]
"""A line, and the node that it is about or "" for none."""


def card_lines(card: Card) -> list[Owned]:
    """Return the lines of a card: its nodes, the sources they read, and its purposes."""
    marks = [("", (Run(short(mark), "mark", bold=True),)) for mark in card.marks[:MOST_LINES]]
    if card.fold is not None:
        return [*_fold(card), *marks]
    return [*_head(card), *_table(_sources(card), right=True), *marks]


def _head(card: Card) -> Iterator[Owned]:
    last = card.nodes[-1]
    if card.summed and len(card.nodes) > 1:
        yield last.name, (Run(card.side, bold=True), muted(f" {len(card.nodes)} nodes"))
        yield last.name, (Run(str(last.type)),)
    elif card.side == "wrt":
        yield "", (Run("gradients of parameters", bold=True),)
        yield from _table(_gradients(card), right=True)
    elif len(card.nodes) == 1:
        part = _part(card, last)
        name = _op(card, last)
        yield last.name, (name, muted(f" {part}".rstrip()))
        yield last.name, (Run(str(last.type)),)
    else:
        yield from _table(_nodes(card), right=False)


def _fold(card: Card) -> Iterator[Owned]:
    """Yield the lines about a fold; each names its first node, where a click unfolds the page."""
    first = card.nodes[0].name
    assert card.fold is not None
    yield first, (Run(card.fold.text, bold=True),)
    yield first, (muted(f"{len(card.nodes):,} nodes"),)
    parameters = sum(row.count for row in card.rows)
    if parameters:
        yield first, (muted(f"{parameters:,} parameters"),)


def _nodes(card: Card) -> Iterator[Cells]:
    shown = card.nodes if len(card.nodes) <= MOST_LINES else card.nodes[1 - MOST_LINES :]
    if len(shown) < len(card.nodes):
        yield "", muted(f"{len(card.nodes) - len(shown)} more"), _NOTHING, _NOTHING
    for node in shown:
        yield node.name, _op(card, node), muted(_part(card, node)), Run(str(node.type))


def _op(card: Card, node: Node) -> Run:
    """Return the op's name, in the forward part's colour if the backward part recomputes it."""
    colour = "forward" if card.side == "backward" and node.recomputes else "ink"
    return Run(short(node.op.name, NAME_WIDTH), colour, bold=True)


def _part(card: Card, node: Node) -> str:
    """Return the part of the node's name that the frame around the card does not show already."""
    if card.side == "input":
        return short(_local(node.name), NAME_WIDTH)
    if node.name == card.layer:
        return ""
    for mark, prefix in (("", ""), ("d_", "d ")):
        if node.name.startswith(f"{mark}{card.layer}."):
            return short(prefix + node.name[len(mark) + len(card.layer) :], NAME_WIDTH)
    return short(_local(node.name), NAME_WIDTH)


def _local(name: str) -> str:
    """Return the name within its block; a gradient keeps its `d_`."""
    head, _, tail = name.rpartition("/")
    return f"d_{tail}" if head.startswith("d_") else tail


def _gradients(card: Card) -> Iterator[Cells]:
    for node in card.nodes[:MOST_LINES]:
        name = short(_inside(card, node.name.removeprefix("d_")), NAME_WIDTH)
        op = muted(short(node.op.name, NAME_WIDTH))
        yield node.name, Run(name), op, Run(shape_text(node.type.shape))
    if len(card.nodes) > MOST_LINES:
        yield "", muted(f"{len(card.nodes) - MOST_LINES} more"), _NOTHING, _NOTHING


def _sources(card: Card) -> Iterator[Cells]:
    for row in card.rows[:MOST_LINES]:
        number = Run(f"{row.count:,}" if row.count else "")
        yield row.name, _source_name(card, row), muted(row.what), number
    if len(card.rows) > MOST_LINES:
        rest = sum(row.count for row in card.rows[MOST_LINES:])
        more = muted(f"{len(card.rows) - MOST_LINES} more")
        yield "", more, _NOTHING, Run(f"{rest:,}" if rest else "")


def _source_name(card: Card, row: Row) -> Run:
    """Return a parameter's name; for a state or constant, that word first."""
    name = short(_inside(card, row.name), NAME_WIDTH)
    if row.kind == "parameter":
        return Run(name)
    return muted(row.kind if row.what.startswith("=") else f"{row.kind} {name}")


def _inside(card: Card, name: str) -> str:
    return _local(name.removeprefix(f"{card.layer}."))


def _table(rows: Iterable[Cells], *, right: bool) -> Iterator[Owned]:
    """Yield rows with left-aligned columns; with `right` the last column is right-aligned."""
    cells = list(rows)
    columns = [[run.text for run in runs] for _, *runs in cells]
    widths = [max((len(row[i]) for row in columns), default=0) for i in range(3)]
    between = [width + 1 if width else 0 for width in widths]
    for node, left, middle, end in cells:
        gap = between[1] - len(middle.text) + (widths[2] - len(end.text) if right else 0)
        line = (left, Run(" " * (between[0] - len(left.text))), middle, Run(" " * gap), end)
        yield node, line if end.text else line[:3]


def bytes_text(values: Sequence[Node], steps: int = 1) -> str:
    """Return the bytes of several values as one formula: `400*N + 40 bytes`, `512 x 20*N bytes`."""
    times = f"{steps} x " if steps > 1 else ""
    return f"{times}{value_bytes(values)} bytes".replace(",", "")


_LINES = {
    "flow": {"color": LIGHT["forward"], "penwidth": "1.4", "weight": "8"},
    "gradient": {"color": LIGHT["backward"], "penwidth": "1.4", "weight": "4", "style": "dashed"},
    "saved": {"color": LIGHT["saved"], "penwidth": "1.6", "weight": "0", "style": "dotted"},
    "carried": {"color": LIGHT["forward"], "penwidth": "1.4", "weight": "0", "style": "dashed"},
}
_FRAME = {
    "style": "rounded,dashed",
    "bgcolor": LIGHT["block"],
    "color": LIGHT["edge"],
    "labeljust": "l",
    "margin": "10",
}
_LOOP = {**_FRAME, "style": "rounded", "color": LIGHT["forward"], "penwidth": "1.4"}
DEEPEST = 8
"""The depth to which blocks are framed; names may nest more deeply."""

LEAST: Mapping[Side, int] = {"input": 0, "forward": 26, "backward": 26, "wrt": 0}
"""The least width of each column, in characters."""
WIDEST = 46
"""The greatest width, in characters, that a column is stretched to."""

_LEGEND = (
    ("flow", Run("values (solid)", "forward")),
    ("gradient", Run("gradients (dashed)", "backward")),
    ("saved", Run("saved (dotted)", "saved")),
    ("carried", Run("carried to the next step (dashed)", "forward")),
)


def dot_text(picture: Picture, *, dpi: int | None = None) -> str:
    """Return the DOT source; equal pictures give equal text.  `dpi` is for pixel formats.

    A layer is one DOT node with a port for each card, so that columns stay columns in every
    renderer and however the layers are connected.
    """
    places = {card.id: i for i, box in enumerate(picture.layers) for card in box.cards}
    inputs = {card.id for card in picture.cards if card.side == "input"}
    within: dict[str, list[Link]] = {}
    for link in picture.links:
        if places[link.source] == places[link.target]:
            within.setdefault(link.target, []).append(link)
    g = graphviz.Digraph("graphc")
    g.attr("graph", **graph_attributes(caption_label(picture), "0.4", "0.35", dpi))
    g.attr("node", shape="plain", fontname=FONT, fontsize="11", fontcolor=LIGHT["ink"])
    g.attr("edge", fontname=FONT, fontsize="10", fontcolor=LIGHT["saved"], arrowsize="0.7")
    blocks = _Block()
    for index, box in enumerate(picture.layers):
        blocks.place(index, box)
    _write_blocks(g, blocks, Labels(picture, within), count(), picture.loops)
    for index, link in enumerate(picture.links):
        if places[link.source] != places[link.target]:
            _write_link(g, f"e{index}", link, places, link.source in inputs)
    return str(g.source)


def graph_attributes(label: str, nodesep: str, ranksep: str, dpi: int | None) -> dict[str, str]:
    """Return the attributes of a drawing with that label and these distances."""
    attributes = {
        "label": label,
        "labelloc": "t",
        "fontname": FONT,
        "fontsize": "11",
        "fontcolor": LIGHT["ink"],
        "bgcolor": LIGHT["paper"],
        "newrank": "true",
        "nodesep": nodesep,
        "ranksep": ranksep,
        "pad": "0.2",
    }
    return attributes if dpi is None else {**attributes, "dpi": str(dpi)}


class _Block:
    """A named block with its inner blocks and layers."""

    def __init__(self) -> None:
        self.blocks: dict[str, _Block] = {}
        self.layers: list[tuple[int, LayerBox]] = []

    def place(self, index: int, box: LayerBox) -> None:
        """Put a layer into the blocks that its name is a path of."""
        block = self
        for part in box.name.split("/")[:-1][:DEEPEST]:
            block = block.blocks.setdefault(part, _Block())
        block.layers.append((index, box))


def _write_blocks(
    g: Any,
    block: _Block,
    labels: Labels,
    numbers: Iterator[int],
    loops: Mapping[str, str],
    above: str = "",
) -> None:
    for index, box in block.layers:
        op = re.sub("[^a-z0-9-]", "-", box.op.lower())
        marks = {"id": f"r{index}", "class": f"layer op-{op}"}
        g.node(f"r{index}", label=labels.layer(box), **marks)
    for name, inner in block.blocks.items():
        with g.subgraph(name=f"cluster_{next(numbers)}") as frame:
            path = f"{above}{name}"
            style = _LOOP if path in loops else _FRAME
            frame.attr("graph", label=block_label(name, loops.get(path, "")), **style)
            _write_blocks(frame, inner, labels, numbers, loops, f"{path}/")


def _write_link(g: Any, id: str, link: Link, places: Mapping[str, int], fed: bool) -> None:
    """Write one arrow, downwards, so that layers stay in the order of the forward pass.

    Saved values do not order layers, except that an input (`fed`) is above all its users.
    """
    source, target = places[link.source], places[link.target]
    attributes = {**_LINES[link.kind], "class": link.kind, "id": id}
    if link.kind == "carried":
        gradient = link.values[0].name.startswith("d_")
        side, colour = ("e", LIGHT["backward"]) if gradient else ("w", LIGHT["forward"])
        name = short(", ".join(_local(node.name) for node in link.values))
        ends = [f"r{source}:{link.source}:{side}", f"r{target}:{link.target}:{side}"]
        attributes |= {"color": colour, "fontcolor": colour, "constraint": "false"}
        g.edge(*ends, xlabel=name, **attributes)
        return
    if link.kind == "saved" and not fed:
        attributes["constraint"] = "false"
    if link.kept:
        # A step's many labels would make the lines too tangled for the renderer to give them room.
        attributes["xlabel" if link.steps > 1 else "label"] = bytes_text(link.kept, link.steps)
    ends = [f"r{source}:{link.source}", f"r{target}:{link.target}"]
    if link.kind == "gradient" or (source > target and not fed):
        attributes["dir"] = "back"
        ends.reverse()
    g.edge(f"{ends[0]}:s", f"{ends[1]}:n", **attributes)


class Labels:
    """The labels of one picture: cards of one column are equally wide, so columns are straight."""

    def __init__(self, picture: Picture, within: Mapping[str, Sequence[Link]]) -> None:
        self.within = within
        self.lines = {card.id: [line for _, line in card_lines(card)] for card in picture.cards}
        self.columns = {side: self._column(picture.cards, side) for side in LEAST}
        sizes = [bytes_text(link.values, link.steps) for some in within.values() for link in some]
        self.gap = max((len(size) for size in sizes), default=6)

    def _column(self, cards: Sequence[Card], side: Side) -> int:
        found = [width(line) for c in cards if c.side == side for line in self.lines[c.id]]
        return min(WIDEST, max([LEAST[side], *found]))

    def layer(self, box: LayerBox) -> str:
        """Return a layer in its frame: cards side by side, and what flows between them."""
        cells: list[str] = []
        for card in box.cards:
            if cells:
                into = [line for link in self.within.get(card.id, ()) for line in self._arrow(link)]
                wide = self.gap if card.side == "backward" else 6
                cells.append(f'<td width="{ADVANCE * (wide + 3):.0f}">{_centred(into)}</td>')
            cells.append(f"<td>{self._card(card)}</td>")
        if len(box.cards) == 1 and box.cards[0].side == "input":
            return f"<{self._card(box.cards[0])}>"
        head = f'<tr><td colspan="{len(cells)}" align="left">{_heading(box).markup()}</td></tr>'
        return (
            f'<<table border="1" cellborder="0" cellspacing="0" cellpadding="6" style="rounded"'
            f' bgcolor="{LIGHT["frame"]}" color="{LIGHT["edge"]}">'
            f"{head}<tr>{''.join(cells)}</tr></table>>"
        )

    def _card(self, card: Card) -> str:
        border = "rounded" if card.side in ("input", "forward") else "rounded,dashed"
        size = (
            f' width="{ADVANCE * self.columns[card.side] + 30:.0f}"' if card.side != "input" else ""
        )
        return (
            f'<table port="{card.id}" border="1" cellborder="0" cellspacing="0" cellpadding="5"'
            f' style="{border}" bgcolor="{LIGHT[f"{card.side}-fill"]}" color="{LIGHT[card.side]}"'
            f"{size}><tr><td>{lines_markup(self.lines[card.id])}</td></tr></table>"
        )

    def _arrow(self, link: Link) -> list[Line]:
        if link.kind == "saved":
            dots = "." * (self.gap - 1) + ">"
            return [(Run(bytes_text(link.values, link.steps), "saved"),), (Run(dots, "saved"),)]
        return [(Run("- - ->", "backward"),)]


def block_label(name: str, steps: str = "") -> str:
    """Return the heading of a block, with the number of steps of a loop."""
    more = muted(f"  {steps}").markup() if steps else ""
    return f"<{Run(short(name), bold=True).markup()}{more}>"


def caption_label(picture: Picture) -> str:
    """Return the picture's heading: name, counts, and a legend of the lines."""
    rows = [muted(text).markup() for text in picture.caption]
    kinds = {link.kind for link in picture.links}
    if kinds & {"gradient", "carried"}:
        words = [run.markup() for kind, run in _LEGEND if kind in kinds]
        rows.append(muted(" - ").markup().join(words))
    return heading_label(picture.name, rows)


def heading_label(name: str, rows: Sequence[str]) -> str:
    """Return the heading of a drawing: its name in large letters, and rows of markup below."""
    title = f'<font point-size="15">{Run(short(name, 60), bold=True).markup()}</font>'
    cells = "".join(f"<tr><td>{row}</td></tr>" for row in (title, *rows))
    return f'<<table border="0" cellspacing="0" cellpadding="2">{cells}</table>>'


def _heading(box: LayerBox) -> Run:
    if box.fold is not None:
        ends = (box.fold.layers[0], box.fold.layers[-1])
        return Run(" ... ".join(short(name, 24) for name in dict.fromkeys(ends)), bold=True)
    names = [short(name.rpartition("/")[2] or name) for name in box.made_of]
    return Run(" + ".join(names), bold=True)


def _centred(lines: Sequence[Line]) -> str:
    return "<br/>".join("".join(run.markup() for run in line) for line in lines)
