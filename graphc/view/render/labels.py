"""The labels of a picture's layers, blocks and heading, in DOT's HTML-like markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.ir.graph import Node
from graphc.ir.tensor_type import ITEMSIZE, Batch, count
from graphc.view.render.cards import Line, Run, card_lines, lines_markup, muted, width
from graphc.view.render.picture import Card, LayerBox, Link, Picture, Side
from graphc.view.render.style import LIGHT
from graphc.view.render.words import short

ADVANCE = 6.62
"""The width in points of a character of 11 points, in every monospaced font."""
LEAST: Mapping[Side, int] = {"input": 0, "forward": 26, "backward": 26, "wrt": 0}
"""The least width of each column, in characters."""
MOST = 46
"""The greatest width, in characters, that a column is stretched to."""

_LEGEND = (
    ("flow", Run("values (solid)", "forward")),
    ("gradient", Run("gradients (dashed)", "backward")),
    ("saved", Run("saved (dotted)", "saved")),
)


class Labels:
    """The labels of one picture: cards of one column are equally wide, so columns are straight."""

    def __init__(self, picture: Picture, within: Mapping[str, Sequence[Link]]) -> None:
        cards = [card for box in picture.layers for card in box.cards]
        self.within = within
        self.lines = {card.id: [line for _, line in card_lines(card)] for card in cards}
        self.columns = {side: self._column(cards, side) for side in LEAST}
        sizes = [bytes_text(link.values) for links in within.values() for link in links]
        self.gap = max((len(size) for size in sizes), default=6)

    def _column(self, cards: Sequence[Card], side: Side) -> int:
        found = [width(line) for c in cards if c.side == side for line in self.lines[c.id]]
        return min(MOST, max([LEAST[side], *found]))

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
            return [(Run(bytes_text(link.values), "saved"),), (Run(dots, "saved"),)]
        return [(Run("- - ->", "backward"),)]


def block_label(name: str) -> str:
    """Return the heading of a block."""
    return f"<{Run(short(name), bold=True).markup()}>"


def caption_label(picture: Picture) -> str:
    """Return the picture's heading: name, counts, and a legend of the lines."""
    title = f'<font point-size="15">{Run(short(picture.name, 60), bold=True).markup()}</font>'
    rows = [title, *(muted(text).markup() for text in picture.caption)]
    kinds = {link.kind for link in picture.links}
    if "gradient" in kinds:
        words = [run.markup() for kind, run in _LEGEND if kind in kinds]
        rows.append(muted(" - ").markup().join(words))
    cells = "".join(f"<tr><td>{row}</td></tr>" for row in rows)
    return f'<<table border="0" cellspacing="0" cellpadding="2">{cells}</table>>'


def bytes_text(values: Sequence[Node]) -> str:
    """Return the bytes of several values as one formula: `400*N + 40 bytes`."""
    fixed = batched = 0
    for node in values:
        size = count(node.type.shape)
        if isinstance(size, Batch):
            batched += size.factor * ITEMSIZE[node.type.dtype]
        else:
            fixed += size * ITEMSIZE[node.type.dtype]
    terms = [f"{batched}*N"] if batched else []
    return f"{' + '.join([*terms, *([str(fixed)] if fixed or not terms else [])])} bytes"


def _heading(box: LayerBox) -> Run:
    if box.fold is not None:
        ends = (box.fold.layers[0], box.fold.layers[-1])
        return Run(" ... ".join(short(name, 24) for name in dict.fromkeys(ends)), bold=True)
    names = [short(name.rpartition("/")[2] or name) for name in box.made_of]
    return Run(" + ".join(names), bold=True)


def _centred(lines: Sequence[Line]) -> str:
    return "<br/>".join("".join(run.markup() for run in line) for line in lines)
