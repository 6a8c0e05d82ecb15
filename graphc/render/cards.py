"""What stands on a card: lines of monospaced text, laid out by counting characters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from graphc.graph import Node
from graphc.render.picture import REST, Card, Row
from graphc.render.style import LIGHT
from graphc.render.words import escape, short
from graphc.tensor_type import shape_text

MOST_ROWS = 12
"""More parameters, states and constants than this are summed up in one line."""
NAME_WIDTH = 24


@dataclass(frozen=True, slots=True)
class Run:
    """A piece of a line: plain text, bold or in a colour of the style's table."""

    text: str
    colour: str = "ink"
    bold: bool = False

    def markup(self) -> str:
        """The piece as HTML-like text; spaces keep their width."""
        text = escape(self.text).replace(" ", "&#160;")
        if self.bold:
            text = f"<b>{text}</b>"
        return text if self.colour == "ink" else f'<font color="{LIGHT[self.colour]}">{text}</font>'


Line = tuple[Run, ...]


def width(line: Line) -> int:
    """How many characters a line is wide."""
    return sum(len(run.text) for run in line)


def muted(text: str) -> Run:
    """What matters less."""
    return Run(text, "muted")


def card_lines(card: Card) -> list[Line]:
    """The lines of a card, before it is padded to the width of its column."""
    return [*_head(card), *_table(_source_cells(card)), *_marks(card)]


def _head(card: Card) -> Iterator[Line]:
    if card.layer == REST:
        yield (Run(f"... {len(card.nodes):,} nodes", bold=True),)
        yield (muted("not drawn one by one"),)
    elif card.side == "wrt":
        yield (Run("gradients of parameters", bold=True),)
        yield from _table(_gradient_cells(card))
    else:
        node = card.nodes[-1]
        count = f"{len(card.nodes)} nodes"
        part = count if card.folded else short(_part(card, node), NAME_WIDTH)
        title = card.side if card.folded else short(node.op.name, NAME_WIDTH)
        yield (Run(title, bold=True), muted(f" {part}")) if part else (Run(title, bold=True),)
        yield (Run(str(node.type)),)


def _part(card: Card, node: Node) -> str:
    """What the frame around the card does not say already of its name."""
    if card.side == "input":
        return _local(node.name)
    for mark in ("", "d_"):
        if node.name.startswith(f"{mark}{card.layer}."):
            return f"{mark}{node.name[len(mark) + len(card.layer) :]}"
    return "" if node.name == card.layer else _local(node.name)


def _local(name: str) -> str:
    """The name within its block; a gradient keeps its mark."""
    head, _, tail = name.rpartition("/")
    return f"d_{tail}" if head.startswith("d_") else tail


def _gradient_cells(card: Card) -> Iterator[tuple[Run, Run, Run]]:
    for node in card.nodes[:MOST_ROWS]:
        name = node.name.removeprefix("d_")
        yield (
            Run(short(_inside(card, name), NAME_WIDTH)),
            muted(short(node.op.name, NAME_WIDTH)),
            Run(shape_text(node.type.shape)),
        )
    if len(card.nodes) > MOST_ROWS:
        yield muted(f"and {len(card.nodes) - MOST_ROWS} more"), Run(""), Run("")


def _source_cells(card: Card) -> Iterator[tuple[Run, Run, Run]]:
    for row in card.rows[:MOST_ROWS]:
        count = Run(f"{row.count:,}" if row.count else "")
        yield _source_name(card, row), muted(row.what), count
    if len(card.rows) > MOST_ROWS:
        rest = sum(row.count for row in card.rows[MOST_ROWS:])
        more = muted(f"and {len(card.rows) - MOST_ROWS} more")
        yield more, muted(""), Run(f"{rest:,}" if rest else "")


def _source_name(card: Card, row: Row) -> Run:
    name = short(_inside(card, row.name), NAME_WIDTH)
    return Run(name) if row.kind == "parameter" else muted(f"{row.kind} {name}")


def _inside(card: Card, name: str) -> str:
    return _local(name.removeprefix(f"{card.layer}."))


def _table(rows: Iterable[tuple[Run, Run, Run]]) -> Iterator[Line]:
    """Two columns from the left, and numbers that end in one line."""
    cells = list(rows)
    widths = [max((len(row[i].text) for row in cells), default=0) for i in range(3)]
    for left, middle, right in cells:
        gap = widths[0] - len(left.text) + 1
        before = widths[1] - len(middle.text) + 1 + widths[2] - len(right.text)
        line = (left, Run(" " * gap), middle, Run(" " * before), right)
        yield line if right.text else line[:3]


def _marks(card: Card) -> Iterator[Line]:
    for mark in card.marks[:MOST_ROWS]:
        yield (Run(short(mark), "mark", bold=True),)


def lines_markup(lines: Sequence[Line]) -> str:
    """Lines as one cell's text, each starting at the left."""
    return "".join(f'{"".join(r.markup() for r in line)}<br align="left"/>' for line in lines)
