"""The net as a view of a page: the picture of its layers, and the same in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graphc.view.render.cards import card_lines
from graphc.view.render.labels import bytes_text
from graphc.view.render.picture import Link, Picture
from graphc.view.render.view import Step, View
from graphc.view.render.words import shown

MOST_LINES = 2000


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture and its SVG, which is empty if there is no renderer."""

    picture: Picture
    svg: str


def graph_view(drawings: Sequence[Drawing]) -> View:
    """Return the tab that a page opens with; if blocks are folded, its second step unfolds them.

    The words are those on the cards and arrows.
    """
    return View("graph", "Graph", tuple([_step(drawing) for drawing in drawings]))


def _step(drawing: Drawing) -> Step:
    lines = list(_words(drawing.picture))
    hidden = len(lines) - MOST_LINES
    if hidden > 0:
        lines[MOST_LINES:] = [f"... {hidden:,} more lines"]
    return Step(", ".join(drawing.picture.caption), drawing.svg, shown_lines(lines))


def shown_lines(lines: list[str]) -> str:
    """Return the lines joined, with line breaks and control characters in each escaped."""
    return "\n".join(map(shown, lines))


def _words(picture: Picture) -> Iterator[str]:
    readers: dict[str, list[Link]] = {}
    layer_of = {card.id: box for box in picture.layers for card in box.cards}
    for link in picture.links:
        readers.setdefault(link.source, []).append(link)
    for box in picture.layers:
        yield box.text
        for card in box.cards:
            texts = ("".join(run.text for run in line).strip() for _, line in card_lines(card))
            yield f"  {card.side}: {'; '.join(texts)}"
            for link in readers.get(card.id, ()):
                target = layer_of[link.target]
                name = target.text if target.fold else target.name
                yield f"    {_WAYS[link.kind]} {name}, {bytes_text(link.values)}"


_WAYS = {"flow": "goes to", "gradient": "gradient goes to", "saved": "saved for backward of"}
