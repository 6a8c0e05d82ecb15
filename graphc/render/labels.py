"""The labels of a picture's rows, frames and heading, in DOT's HTML-like markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.render.cards import Line, Run, card_lines, lines_markup, muted, width
from graphc.render.picture import Card, LayerBox, Link, Picture, Side
from graphc.render.style import LIGHT
from graphc.render.words import short

ADVANCE = 6.62
"""Points that a character of 11 points advances, in every monospaced font."""
NARROWEST = 28
WIDEST = 44
"""Bounds of a column in characters.  The lower one keeps lines beside the frames' headings."""

_LEGEND = (
    ("flow", Run("values (solid)", "forward")),
    ("gradient", Run("gradients (dashed)", "backward")),
    ("saved", Run("saved (dotted)", "saved")),
)


class Labels:
    """The labels of one picture: cards of one column are equally wide, so columns are straight."""

    def __init__(self, picture: Picture, within: Mapping[int, Sequence[Link]]) -> None:
        self.lines = {card.id: card_lines(card) for card in picture.cards}
        self.columns = self._columns(picture)
        saved = [link for links in within.values() for link in links if link.kind == "saved"]
        self.gap = max((len(_bytes(link)) for link in saved), default=6)

    def _columns(self, picture: Picture) -> dict[Side, int]:
        found: dict[Side, int] = {}
        for card in picture.cards:
            widest = max(width(line) for line in self.lines[card.id])
            least = NARROWEST if card.side in ("forward", "backward") else 0
            found[card.side] = min(WIDEST, max(found.get(card.side, least), widest))
        return found

    def row(self, cards: Sequence[Card], links: Sequence[Link]) -> str:
        """Cards beside each other; what flows between them stands before the one that reads."""
        cells: list[str] = []
        for card in cards:
            if cells:
                into = [line for link in links if link.target == card.id for line in self._arrow(link)]
                space = ADVANCE * ((self.gap if len(cells) == 1 else 6) + 4)
                cells.append(f'<td width="{space:.0f}">{_centred(into)}</td>')
            cells.append(f"<td>{self._box(card)}</td>")
        inner = f"<tr>{''.join(cells)}</tr>"
        return f'<<table border="0" cellspacing="0" cellpadding="0">{inner}</table>>'

    def _box(self, card: Card) -> str:
        border = "rounded" if card.side in ("input", "forward") else "rounded,dashed"
        size = f'width="{ADVANCE * self.columns[card.side] + 16:.0f}"' if card.side != "input" else ""
        return (
            f'<table port="{card.id}" border="1" cellborder="0" cellspacing="0" cellpadding="6"'
            f' style="{border}" bgcolor="{LIGHT[f"{card.side}-fill"]}" color="{LIGHT[card.side]}"'
            f' {size}><tr><td align="left">{lines_markup(self.lines[card.id])}</td></tr></table>'
        )

    def _arrow(self, link: Link) -> list[Line]:
        if link.kind == "saved":
            return [(Run(_bytes(link), "saved"),), (Run("." * (self.gap - 1) + ">", "saved"),)]
        return [(Run("- - ->", "backward"),)]


def frame_label(box: LayerBox | None) -> str:
    """The heading of a layer: its name, or those of the layers fused into it."""
    text = "layers not drawn" if box is None else " + ".join(short(_last(n)) for n in box.made_of)
    return f"<{Run(text, bold=True).markup()}>"


def block_label(name: str) -> str:
    """The heading of a block."""
    return f"<{Run(short(name), bold=True).markup()}>"


def caption_label(picture: Picture) -> str:
    """The picture's heading: name, counts, and what the lines mean."""
    title = f'<font point-size="15">{Run(short(picture.name, 60), bold=True).markup()}</font>'
    rows = [title, *(muted(text).markup() for text in picture.caption)]
    kinds = {link.kind for link in picture.links}
    if "gradient" in kinds:
        words = [run.markup() for kind, run in _LEGEND if kind in kinds]
        rows.append(muted(" - ").markup().join(words))
    cells = "".join(f"<tr><td>{row}</td></tr>" for row in rows)
    return f'<<table border="0" cellspacing="0" cellpadding="2">{cells}</table>>'


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _bytes(link: Link) -> str:
    return f"{link.node.type.bytes_text()} bytes"


def _centred(lines: Sequence[Line]) -> str:
    return "<br/>".join("".join(run.markup() for run in line) for line in lines)
