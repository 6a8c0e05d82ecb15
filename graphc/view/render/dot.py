"""A picture as DOT text; names are only shown, and nodes and edges have generated ids."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import graphviz

from graphc.view.render.labels import Labels, block_label, bytes_text, caption_label
from graphc.view.render.picture import LayerBox, Link, Picture
from graphc.view.render.style import FONT, LIGHT

_LINES = {
    "flow": {"color": LIGHT["forward"], "penwidth": "1.4", "weight": "8"},
    "gradient": {"color": LIGHT["backward"], "penwidth": "1.4", "weight": "4", "style": "dashed"},
    "saved": {"color": LIGHT["saved"], "penwidth": "1.6", "weight": "0", "style": "dotted"},
}
_FRAME = {
    "style": "rounded,dashed",
    "bgcolor": LIGHT["block"],
    "color": LIGHT["edge"],
    "labeljust": "l",
    "margin": "10",
}
DEEPEST = 8
"""The depth to which blocks are framed; names may nest more deeply."""


def dot_text(picture: Picture, *, dpi: int | None = None) -> str:
    """Return the DOT source; equal pictures give equal text.  `dpi` is for pixel formats.

    A layer is one DOT node with a port for each card, so that columns stay columns in every
    renderer and however the layers are connected.
    """
    places = {card.id: i for i, box in enumerate(picture.layers) for card in box.cards}
    inputs = {c.id for box in picture.layers for c in box.cards if c.side == "input"}
    within: dict[str, list[Link]] = {}
    for link in picture.links:
        if places[link.source] == places[link.target]:
            within.setdefault(link.target, []).append(link)
    g = graphviz.Digraph("graphc")
    g.attr("graph", **_graph_attributes(picture, dpi))
    g.attr("node", shape="plain", fontname=FONT, fontsize="11", fontcolor=LIGHT["ink"])
    g.attr("edge", fontname=FONT, fontsize="10", fontcolor=LIGHT["saved"], arrowsize="0.7")
    blocks = _Block()
    for index, box in enumerate(picture.layers):
        blocks.place(index, box)
    _write_blocks(g, blocks, Labels(picture, within), count())
    for index, link in enumerate(picture.links):
        if places[link.source] != places[link.target]:
            _write_link(g, f"e{index}", link, places, link.source in inputs)
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


def _write_blocks(g: Any, block: _Block, labels: Labels, numbers: Iterator[int]) -> None:
    for index, box in block.layers:
        op = re.sub("[^a-z0-9-]", "-", box.op.lower())
        marks = {"id": f"r{index}", "class": f"layer op-{op}"}
        g.node(f"r{index}", label=labels.layer(box), **marks)
    for name, inner in block.blocks.items():
        with g.subgraph(name=f"cluster_{next(numbers)}") as frame:
            frame.attr("graph", label=block_label(name), **_FRAME)
            _write_blocks(frame, inner, labels, numbers)


def _write_link(g: Any, id: str, link: Link, places: Mapping[str, int], fed: bool) -> None:
    """Write one arrow, downwards, so that layers stay in the order of the forward pass.

    Saved values do not order layers, except that an input (`fed`) is above all its users.
    """
    source, target = places[link.source], places[link.target]
    attributes = {**_LINES[link.kind], "class": link.kind, "id": id}
    if link.kind == "saved" and not fed:
        attributes["constraint"] = "false"
    if link.kept:
        attributes["label"] = bytes_text(link.kept)
    ends = [f"r{source}:{link.source}", f"r{target}:{link.target}"]
    if link.kind == "gradient" or (source > target and not fed):
        attributes["dir"] = "back"
        ends.reverse()
    g.edge(f"{ends[0]}:s", f"{ends[1]}:n", **attributes)
