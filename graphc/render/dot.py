"""A picture as DOT text.  Names are only shown: nodes and edges are known by made-up ids."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import graphviz

from graphc.render.labels import Labels, block_label, caption_label, frame_label
from graphc.render.picture import LayerBox, Link, Picture
from graphc.render.style import FONT, LIGHT

_LINES = {
    "flow": {"color": LIGHT["forward"], "penwidth": "1.4", "weight": "8"},
    "gradient": {"color": LIGHT["backward"], "penwidth": "1.4", "weight": "4", "style": "dashed"},
    "saved": {"color": LIGHT["saved"], "penwidth": "1.6", "weight": "0", "style": "dotted"},
}
_FRAME = {"labeljust": "l", "color": LIGHT["edge"], "margin": "10"}


def dot_text(picture: Picture, *, dpi: int | None = None) -> str:
    """The DOT source; equal pictures give equal text.  `dpi` serves formats made of pixels.

    A row of cards is one DOT node with a port for each card, so that columns stay columns
    in every renderer.
    """
    g = graphviz.Digraph("graphc")
    g.attr("graph", **_graph_attributes(picture, dpi))
    g.attr("node", shape="plain", fontname=FONT, fontsize="11", fontcolor=LIGHT["ink"])
    g.attr("edge", fontname=FONT, fontsize="10", fontcolor=LIGHT["saved"], arrowsize="0.7")
    rows = _Rows(picture)
    blocks = _Block()
    for row in picture.rows:
        blocks.place(rows.layer(row), row)
    _Frames(picture, rows).write(g, blocks)
    for index, link in enumerate(picture.links):
        if not rows.inside(link):
            rows.write(g, f"e{index}", link)
    for above, below in rows.gaps():
        g.edge(above, below, style="invis")
    return str(g.source)


def _graph_attributes(picture: Picture, dpi: int | None) -> dict[str, str]:
    attributes = {
        "label": caption_label(picture),
        "labelloc": "t",
        "fontname": FONT,
        "fontsize": "11",
        "fontcolor": LIGHT["ink"],
        "bgcolor": LIGHT["paper"],
        "nodesep": "0.4",
        "ranksep": "0.35",
        "pad": "0.2",
    }
    return attributes if dpi is None else {**attributes, "dpi": str(dpi)}


class _Rows:
    """Where each card stands: row ids, ports, and the links between them."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.cards = {card.id: card for card in picture.cards}
        self.index = {id: i for i, row in enumerate(picture.rows) for id in row}
        self.within: dict[int, list[Link]] = {}
        for link in picture.links:
            if self.inside(link):
                self.within.setdefault(self.index[link.source], []).append(link)
        self.labels = Labels(picture, self.within)

    def layer(self, row: tuple[str, ...]) -> str:
        """The layer that a row stands in, which is that of its first card."""
        return self.cards[row[0]].layer

    def inside(self, link: Link) -> bool:
        """Whether both ends stand in one row, whose label then shows the link."""
        return self.index[link.source] == self.index[link.target]

    def label(self, row: tuple[str, ...]) -> str:
        """The row's cards with the links between them."""
        links = self.within.get(self.index[row[0]], [])
        return self.labels.row([self.cards[id] for id in row], links)

    def port(self, card: str) -> str:
        """The address of a card."""
        return f"r{self.index[card]}:{card}"

    def write(self, g: Any, id: str, link: Link) -> None:
        """One arrow.  It is written downwards, so that a gradient stays beside its value."""
        up = link.kind == "gradient" or self.index[link.source] > self.index[link.target]
        attributes = {**_LINES[link.kind], "class": link.kind, "id": id}
        if link.kind == "saved":
            attributes["constraint"] = "false"
        if link.labelled:
            attributes["label"] = f"{link.node.type.bytes_text()} bytes"
        if up:
            attributes["dir"] = "back"
        top, bottom = (link.target, link.source) if up else (link.source, link.target)
        g.edge(f"{self.port(top)}:s", f"{self.port(bottom)}:n", **attributes)

    def gaps(self) -> Iterator[tuple[str, str]]:
        """Pairs that put what a layer makes of nothing drawn, such as a mask, under its operand."""
        flows = [link for link in self.picture.links if link.kind == "flow"]
        fed = {link.target for link in flows}
        above: dict[str, str] = {}
        for link in flows:
            layer = self.cards[link.target].layer
            if self.cards[link.source].layer != layer:
                above.setdefault(layer, link.source)
        for card in self.picture.cards:
            if card.side == "forward" and card.id not in fed and card.layer in above:
                yield self.port(above[card.layer]), self.port(card.id)


class _Block:
    """A named block with its inner blocks and layers, in the order of their first rows."""

    def __init__(self) -> None:
        self.blocks: dict[str, _Block] = {}
        self.layers: dict[str, list[tuple[str, ...]]] = {}

    def place(self, layer: str, row: tuple[str, ...]) -> None:
        """Put a row into the blocks that its layer's name is a path of."""
        block = self
        for part in layer.split("/")[:-1]:
            block = block.blocks.setdefault(part, _Block())
        block.layers.setdefault(layer, []).append(row)


class _Frames:
    """Writes rows in the frames of their layers, and those in the frames of their blocks."""

    def __init__(self, picture: Picture, rows: _Rows) -> None:
        self.layers: Mapping[str, LayerBox] = picture.layers
        self.rows = rows
        self.clusters = 0

    def write(self, g: Any, block: _Block) -> None:
        """What one block holds."""
        for layer, rows in block.layers.items():
            if len(rows[0]) == len(rows) == 1 and self.rows.cards[rows[0][0]].side == "input":
                self._rows(g, rows)
            else:
                with g.subgraph(name=self._cluster()) as frame:
                    style = {"style": "rounded", "bgcolor": LIGHT["frame"]}
                    box = self.layers.get(layer)
                    named = {} if box is None else {"id": box.id}
                    frame.attr("graph", label=frame_label(box), **named, **_FRAME, **style)
                    self._rows(frame, rows)
        for name, inner in block.blocks.items():
            with g.subgraph(name=self._cluster()) as frame:
                style = {"style": "rounded,dashed", "bgcolor": LIGHT["block"]}
                frame.attr("graph", label=block_label(name), **_FRAME, **style)
                self.write(frame, inner)

    def _cluster(self) -> str:
        self.clusters += 1
        return f"cluster_{self.clusters}"

    def _rows(self, g: Any, rows: Iterable[tuple[str, ...]]) -> None:
        for row in rows:
            op = self.rows.cards[row[0]].nodes[-1].op.name
            id = f"r{self.rows.index[row[0]]}"
            classes = f"row op-{re.sub('[^a-z0-9-]', '-', op.lower())}"
            g.node(id, label=self.rows.label(row), **{"class": classes, "id": id})
