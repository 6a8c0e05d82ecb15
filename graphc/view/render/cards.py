"""The lines on the cards of a layer: nodes with their types, what they read, and purposes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from graphc.ir.graph import Node
from graphc.ir.tensor_type import shape_text
from graphc.view.cost import value_bytes
from graphc.view.render.draw import Card, Row
from graphc.view.render.style import Line, Run, muted, short

MOST_LINES = 12
"""The most lines of one kind; further ones are summed up in one line."""
NAME_WIDTH = 24

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
        return short(local(node.name), NAME_WIDTH)
    if node.name == card.layer:
        return ""
    for mark, prefix in (("", ""), ("d_", "d ")):
        if node.name.startswith(f"{mark}{card.layer}."):
            return short(prefix + node.name[len(mark) + len(card.layer) :], NAME_WIDTH)
    return short(local(node.name), NAME_WIDTH)


def local(name: str) -> str:
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
    return local(name.removeprefix(f"{card.layer}."))


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
