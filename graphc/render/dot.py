"""A picture as DOT text.  Names are only shown: nodes and edges are known by made-up ids."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import graphviz

from graphc.render.cards import caption_label, card_label, frame_label
from graphc.render.picture import Card, LayerBox, Link, Picture
from graphc.render.style import FONT, LIGHT
from graphc.render.words import short

_LINES = {
    "flow": {"color": LIGHT["forward"], "penwidth": "1.4", "weight": "8"},
    "gradient": {"color": LIGHT["backward"], "penwidth": "1.4", "weight": "4", "style": "dashed"},
    "saved": {"color": LIGHT["saved"], "style": "dotted", "penwidth": "1.6"},
}
_FRAME = {"labeljust": "l", "color": LIGHT["edge"], "margin": "10"}


def dot_text(picture: Picture, *, dpi: int | None = None) -> str:
    """The DOT source; equal pictures give equal text.  `dpi` serves formats made of pixels."""
    g = graphviz.Digraph("graphc")
    g.attr("graph", **_graph_attributes(picture, dpi))
    g.attr("node", shape="plain", fontname=FONT, fontsize="11", fontcolor=LIGHT["ink"])
    g.attr("edge", fontname=FONT, fontsize="10", fontcolor=LIGHT["saved"], arrowsize="0.7")
    blocks = _Block()
    for card in picture.cards:
        blocks.place(card)
    _Writer(picture).block(g, blocks)
    _write_links(g, picture)
    return str(g.source)


def _graph_attributes(picture: Picture, dpi: int | None) -> dict[str, str]:
    attributes = {
        "label": caption_label(picture),
        "labelloc": "t",
        "fontname": FONT,
        "fontsize": "11",
        "fontcolor": LIGHT["ink"],
        "bgcolor": LIGHT["paper"],
        "newrank": "true",
        "nodesep": "0.4",
        "ranksep": "0.35",
        "pad": "0.2",
    }
    return attributes if dpi is None else {**attributes, "dpi": str(dpi)}


class _Block:
    """A named block with its inner blocks and layers, in the order of their first cards."""

    def __init__(self) -> None:
        self.blocks: dict[str, _Block] = {}
        self.layers: dict[str, list[Card]] = {}

    def place(self, card: Card) -> None:
        """Put a card into the blocks that its layer's name is a path of."""
        block = self
        for part in card.layer.split("/")[:-1]:
            block = block.blocks.setdefault(part, _Block())
        block.layers.setdefault(card.layer, []).append(card)


class _Writer:
    """Writes cards in their frames."""

    def __init__(self, picture: Picture) -> None:
        self.layers: Mapping[str, LayerBox] = picture.layers
        self.row_of = {row[0]: row for row in picture.rows}
        self.clusters = 0

    def block(self, g: Any, block: _Block) -> None:
        """The layers and the blocks inside one block, each in a frame."""
        for layer, cards in block.layers.items():
            if len(cards) == 1 and cards[0].side == "input":
                self._cards(g, cards)
            else:
                with g.subgraph(name=self._cluster()) as frame:
                    style = {"style": "rounded", "bgcolor": LIGHT["frame"]}
                    box = self.layers.get(layer)
                    named = {} if box is None else {"id": box.id}
                    frame.attr("graph", label=frame_label(box), **named, **_FRAME, **style)
                    self._cards(frame, cards)
        for name, inner in block.blocks.items():
            with g.subgraph(name=self._cluster()) as frame:
                style = {"style": "rounded,dashed", "bgcolor": LIGHT["block"]}
                frame.attr("graph", label=f"<<b>{short(name)}</b>>", **_FRAME, **style)
                self.block(frame, inner)

    def _cluster(self) -> str:
        self.clusters += 1
        return f"cluster_{self.clusters}"

    def _cards(self, g: Any, cards: list[Card]) -> None:
        for card in cards:
            classes = f"card {card.side} op-{_css_name(card.nodes[-1].op.name)}"
            column = {"class": classes, "id": card.id, "group": card.side}
            g.node(card.id, label=card_label(card), **column)
        for card in cards:
            row = self.row_of.get(card.id)
            if row is not None:
                with g.subgraph() as rank:
                    rank.attr("graph", rank="same")
                    for id in row:
                        rank.node(id)


def _write_links(g: Any, picture: Picture) -> None:
    beside = {pair for row in picture.rows for pair in pairwise(row)}
    linked: set[tuple[str, str]] = set()
    for index, link in enumerate(picture.links):
        attributes = _link_attributes(link)
        ends = (link.source, link.target)
        if link.kind == "gradient" and ends not in beside:
            # Written downwards, so that a gradient stands in the row of its value.
            attributes["dir"] = "back"
            ends = ends[::-1]
        if link.kind != "saved":
            linked.add(ends)
        g.edge(*ends, **attributes, id=f"e{index}")
    for pair in sorted(beside - linked | set(_below(picture))):
        g.edge(*pair, style="invis")


def _below(picture: Picture) -> Iterable[tuple[str, str]]:
    """Pairs that put what a layer makes of nothing drawn, such as a mask, under its operand."""
    layer_of = {card.id: card.layer for card in picture.cards}
    flows = [link for link in picture.links if link.kind == "flow"]
    fed = {link.target for link in flows}
    above: dict[str, str] = {}
    for link in flows:
        if layer_of[link.source] != layer_of[link.target]:
            above.setdefault(layer_of[link.target], link.source)
    for card in picture.cards:
        if card.side == "forward" and card.id not in fed and card.layer in above:
            yield above[card.layer], card.id


def _link_attributes(link: Link) -> dict[str, str]:
    attributes = {**_LINES[link.kind], "class": link.kind}
    if link.kind == "saved":
        attributes["constraint"] = "false"
    if link.labelled:
        attributes["label"] = f"{link.node.type.bytes_text()} bytes"
    return attributes


def _css_name(op: str) -> str:
    return re.sub(r"[^a-z0-9-]", "-", op.lower())
