"""The net as a view of a page: the picture of its layers, and the same in words."""

from __future__ import annotations

from collections.abc import Iterator

from graphc.render.cards import card_lines
from graphc.render.labels import bytes_text
from graphc.render.picture import Link, Picture
from graphc.render.view import Step, View
from graphc.render.words import shown

MOST_LINES = 2000


def graph_view(picture: Picture, svg: str) -> View:
    """The tab that a page opens with; its words are what stands on the cards and arrows."""
    lines = list(_words(picture))
    hidden = len(lines) - MOST_LINES
    if hidden > 0:
        lines[MOST_LINES:] = [f"... {hidden:,} more lines"]
    title = ", ".join(picture.caption)
    return View("graph", "Graph", (Step(title, svg, shown_lines(lines)),))


def shown_lines(lines: list[str]) -> str:
    """The lines, each with nothing in it that could leave it."""
    return "\n".join(map(shown, lines))


def _words(picture: Picture) -> Iterator[str]:
    readers: dict[str, list[Link]] = {}
    layer_of = {card.id: box.name for box in picture.layers for card in box.cards}
    for link in picture.links:
        readers.setdefault(link.source, []).append(link)
    for box in picture.layers:
        yield " + ".join(box.made_of) or "layers not drawn"
        for card in box.cards:
            texts = ("".join(run.text for run in line).strip() for _, line in card_lines(card))
            yield f"  {card.side}: {'; '.join(texts)}"
            for link in readers.get(card.id, ()):
                target = layer_of[link.target] or "layers not drawn"
                yield f"    {_WAYS[link.kind]} {target}, {bytes_text(link.values)}"


_WAYS = {"flow": "goes to", "gradient": "gradient goes to", "saved": "saved for backward of"}
