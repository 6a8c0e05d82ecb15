"""The labels of a picture, as the HTML-like tables that DOT knows."""

from __future__ import annotations

from collections.abc import Iterable

from graphc.render.picture import REST, Card, LayerBox, Picture, Row
from graphc.render.style import LIGHT
from graphc.render.words import short
from graphc.tensor_type import shape_text

CARD_WIDTH = 190
"""In points: wide enough that a column's lines pass beside the headings of the frames."""
MOST_ROWS = 12
"""More rows than this are summed up in one line."""


def card_label(card: Card) -> str:
    """A box: op and name, type, and what the card reads or is for."""
    lines = _rest_lines(card) if card.layer == REST else _lines(card)
    width = CARD_WIDTH if card.side != "input" else 0
    border = "rounded" if card.side in ("input", "forward") else "rounded,dashed"
    fill, line = LIGHT[f"{card.side}-fill"], LIGHT[card.side]
    return (
        f'<<table border="1" cellborder="0" cellspacing="0" cellpadding="4" style="{border}"'
        f' width="{width}"'
        f' bgcolor="{fill}" color="{line}">{"".join(lines)}</table>>'
    )


def frame_label(box: LayerBox | None) -> str:
    """The heading of a layer: its name and what it is."""
    if box is None:
        return "<layers not drawn>"
    names = " + ".join(short(name.rpartition("/")[2]) for name in box.made_of)
    return f"<<b>{names}</b>>"


def caption_label(picture: Picture) -> str:
    """The picture's heading: name, counts, and what the lines mean."""
    lines = [f'<font point-size="15"><b>{short(picture.name, 60)}</b></font>']
    lines += [_muted(text) for text in picture.caption]
    kinds = {link.kind for link in picture.links}
    words = {"flow": "values (solid)", "gradient": "gradients (dashed)", "saved": "saved (dotted)"}
    colours = {"flow": "forward", "gradient": "backward", "saved": "saved"}
    legend = [_coloured(words[k], colours[k]) for k in words if k in kinds]
    rows = [*lines, _muted(" · ").join(legend)] if "gradient" in kinds else lines
    cells = "".join(f"<tr><td>{line}</td></tr>" for line in rows)
    return f'<<table border="0" cellspacing="0" cellpadding="2">{cells}</table>>'


def _lines(card: Card) -> Iterable[str]:
    if card.side == "wrt":
        yield _wide("<b>gradients of parameters</b>")
        yield from _gradients(card)
    elif card.folded:
        last = card.nodes[-1]
        yield _wide(f"<b>{card.side}</b> {_muted(f'{len(card.nodes)} nodes')}")
        yield _wide(str(last.type))
    else:
        (node,) = card.nodes
        part = "" if _headed(card) else _part(card, node.name)
        yield _wide(f"<b>{short(node.op.name)}</b> {_muted(short(part))}")
        yield _wide(str(node.type))
    yield from _source_rows(card)
    for mark in card.marks:
        yield _wide(f"<b>{_coloured(short(mark), 'mark')}</b>")


def _rest_lines(card: Card) -> Iterable[str]:
    yield _wide(f"<b>… {len(card.nodes):,} nodes</b>")
    yield _wide(_muted(f"{card.side}, not drawn one by one"))


def _gradients(card: Card) -> Iterable[str]:
    for node in card.nodes[:MOST_ROWS]:
        yield _row(short(_local(node.name)), short(node.op.name), shape_text(node.type.shape))
    if len(card.nodes) > MOST_ROWS:
        yield _wide(_muted(f"and {len(card.nodes) - MOST_ROWS} more"))


def _source_rows(card: Card) -> Iterable[str]:
    for row in card.rows[:MOST_ROWS]:
        yield _row(_source_name(card, row), row.what, f"{row.count:,}" if row.count else "")
    if len(card.rows) > MOST_ROWS:
        rest = sum(row.count for row in card.rows[MOST_ROWS:])
        yield _wide(_muted(f"and {len(card.rows) - MOST_ROWS} more, {rest:,} parameters"))


def _headed(card: Card) -> bool:
    """Whether the frame around the card already says its name; inputs have no frame."""
    return card.side == "forward" and card.nodes[0].name == card.layer


def _part(card: Card, name: str) -> str:
    inside = name.startswith(f"{card.layer}.")
    return name[len(card.layer) :] if inside else _local(name)


def _source_name(card: Card, row: Row) -> str:
    text = short(_part(card, row.name).lstrip("."))
    return text if row.kind == "parameter" else f"{_muted(row.kind)} {text}"


def _local(name: str) -> str:
    """The name within its block; a gradient keeps its mark."""
    head, _, tail = name.rpartition("/")
    return f"d_{tail}" if head.startswith("d_") else tail


def _wide(text: str) -> str:
    return f'<tr><td align="left" colspan="3">{text}</td></tr>'


def _row(left: str, middle: str, right: str) -> str:
    return (
        f'<tr><td align="left">{left}</td><td align="left">{_muted(middle)}</td>'
        f'<td align="right">{right}</td></tr>'
    )


def _muted(text: str) -> str:
    return _coloured(text, "muted")


def _coloured(text: str, name: str) -> str:
    return f'<font color="{LIGHT[name]}">{text}</font>' if text.strip() else text
