"""The contents of a card: lines of monospaced text, laid out by counting characters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from graphc.ir.graph import Node
from graphc.ir.tensor_type import shape_text
from graphc.ops.fused import is_clone
from graphc.view.cost import value_bytes
from graphc.view.render.draw import Card, Row
from graphc.view.render.style import LIGHT, escape, short

MOST = 12
"""The most lines of one kind; further ones are summed up in one line."""
NAME_WIDTH = 24
ADVANCE = 6.62
"""The width in points of a character of 11 points, in every monospaced font."""
END = 14
"""The font size of the space that ends each line, larger than all text on cards."""


@dataclass(frozen=True, slots=True)
class Run:
    """A piece of a line: plain text, bold, crossed out, or in a colour of the style's table."""

    text: str
    colour: str = "ink"
    bold: bool = False
    struck: bool = False

    def markup(self) -> str:
        """Return the piece as HTML-like text, in which spaces keep their width."""
        # DOT replaces \N, \G and the like by names; a doubled backslash is a literal one.
        text = escape(self.text).replace("\\", "\\\\")
        if self.bold and text:
            text = f"<b>{text}</b>"
        if self.colour != "ink" and text:
            text = f'<font color="{LIGHT[self.colour]}">{text}</font>'
        return f"<s>{text}</s>" if self.struck and text else text


Line = tuple[Run, ...]
Cells = tuple[str, Run, Run, Run]
"""The node that a row of a table is about, and its three columns."""
_NOTHING = Run("")

Owned = tuple[str, Line]
"""A line, and the node that it is about or "" for none."""


def width(line: Line) -> int:
    """Return the number of characters of a line."""
    return sum(len(run.text) for run in line)


def muted(text: str) -> Run:
    """Return a piece of text in the colour for what matters less."""
    return Run(text, "muted")


def struck(text: str, width: int) -> Run:
    """Return text with a line through it."""
    return Run(short(text, width), "muted", struck=True)


def card_lines(card: Card) -> list[Owned]:
    """Return the lines of a card: its nodes, what they read, and what they are for."""
    marks = [("", (Run(short(mark), "mark", bold=True),)) for mark in card.marks[:MOST]]
    if card.fold is not None:
        return [*_fold(card), *marks]
    return [*_head(card), *_table(_sources(card), right=True), *marks]


def lines_markup(lines: Sequence[Line]) -> str:
    """Return lines as the text of one cell, each left-aligned; a larger space spreads them."""
    end = f'<font point-size="{END}"> </font><br align="left"/>'
    return "".join(f"{''.join(run.markup() for run in line)}{end}" for line in lines)


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
    shown = card.nodes if len(card.nodes) <= MOST else card.nodes[1 - MOST :]
    if len(shown) < len(card.nodes):
        yield "", muted(f"{len(card.nodes) - len(shown)} more"), _NOTHING, _NOTHING
    for node in shown:
        yield node.name, _op(card, node), muted(_part(card, node)), Run(str(node.type))


def _op(card: Card, node: Node) -> Run:
    """Return the op's name, in the forward part's colour if the backward part recomputes it."""
    colour = "forward" if card.side == "backward" and is_clone(node.name) else "ink"
    return Run(short(node.op.name, NAME_WIDTH), colour, bold=True)


def _part(card: Card, node: Node) -> str:
    """Return the part of the node's name that the frame around the card does not show already."""
    if card.side == "input":
        return short(_local(node.name), NAME_WIDTH)
    if node.name == card.layer:
        return ""
    for mark, said in (("", ""), ("d_", "d ")):
        if node.name.startswith(f"{mark}{card.layer}."):
            return short(said + node.name[len(mark) + len(card.layer) :], NAME_WIDTH)
    return short(_local(node.name), NAME_WIDTH)


def _local(name: str) -> str:
    """Return the name within its block; a gradient keeps its `d_`."""
    head, _, tail = name.rpartition("/")
    return f"d_{tail}" if head.startswith("d_") else tail


def _gradients(card: Card) -> Iterator[Cells]:
    for node in card.nodes[:MOST]:
        name = short(_inside(card, node.name.removeprefix("d_")), NAME_WIDTH)
        op = muted(short(node.op.name, NAME_WIDTH))
        yield node.name, Run(name), op, Run(shape_text(node.type.shape))
    if len(card.nodes) > MOST:
        yield "", muted(f"{len(card.nodes) - MOST} more"), _NOTHING, _NOTHING


def _sources(card: Card) -> Iterator[Cells]:
    for row in card.rows[:MOST]:
        number = Run(f"{row.count:,}" if row.count else "")
        yield row.name, _source_name(card, row), muted(row.what), number
    if len(card.rows) > MOST:
        rest = sum(row.count for row in card.rows[MOST:])
        more = muted(f"{len(card.rows) - MOST} more")
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


def bytes_text(values: Sequence[Node]) -> str:
    """Return the bytes of several values as one formula: `400*N + 40 bytes`."""
    size = value_bytes(values)
    terms = [f"{size.rows}*N"] if size.rows else []
    if size.fixed or not terms:
        terms.append(str(size.fixed))
    return f"{' + '.join(terms)} bytes"
