"""The facts of nodes as JSON for the page's script; any name in it is only text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from graphc.view.render.derivation import Rows
from graphc.view.render.page.facts import Facts
from graphc.view.render.picture import Card, Picture
from graphc.view.render.words import shown

MOST = 5000
"""The most nodes that can be searched for; above it, only the drawn ones and the first others."""
_INERT = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026", 0x7F: "\\u007f"}


def facts_json(facts: Facts, pictures: Sequence[Picture]) -> str:
    """Return all nodes, drawn ones first; each has the numbers of its operands and its users.

    A node is [name, op, type, line, rows, derivation, operands, readers, card]: the last is the
    number of the node whose lines on the card of the last picture represent it, or -1 if its own
    are drawn.
    """
    cards = dict(_cards(pictures[-1]))
    drawn = dict.fromkeys(name for picture in reversed(pictures) for name in _drawn(picture))
    names = [name for name in dict.fromkeys([*drawn, *facts.homes]) if name in facts.homes]
    hidden = len(names) - max(MOST, len(drawn))
    names = names[: len(names) - max(hidden, 0)]
    numbers = {name: number for number, name in enumerate(names)}
    derived = facts.derived(names)
    nodes = (_node(facts, name, derived.get(name, ()), numbers, cards) for name in names)
    lines = ",\n".join(map(_json, nodes))
    # A line for each node, so that a renamed one changes few lines of the file.
    return f'{{"hidden":{max(hidden, 0)},"nodes":[\n{lines}\n]}}'


def _json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_INERT)


def _drawn(picture: Picture) -> Iterator[str]:
    for card in _all_cards(picture):
        if card.fold is not None:
            yield card.nodes[0].name
            continue
        yield from (node.name for node in card.nodes)
        yield from (row.name for row in card.rows)


def _cards(picture: Picture) -> Iterator[tuple[str, str]]:
    """Yield each node that is on a card, with the node whose lines represent it."""
    for card in _all_cards(picture):
        first, last = card.nodes[0].name, card.nodes[-1].name
        for node in card.nodes:
            yield node.name, first if card.fold else last if card.summed else node.name


def _all_cards(picture: Picture) -> Iterator[Card]:
    return (card for box in picture.layers for card in box.cards)


def _node(
    facts: Facts, name: str, derived: Rows, numbers: Mapping[str, int], cards: Mapping[str, str]
) -> list[object]:
    told = facts.of(name)
    graph = facts.homes[name]
    card = cards.get(name, name)
    return [
        told.name,
        told.op,
        told.type,
        told.line,
        told.rows,
        derived,
        _numbers(graph[name].inputs, numbers),
        _numbers(graph.users[name], numbers),
        -1 if card == name else numbers[card],
    ]


def _numbers(names: Iterable[str], numbers: Mapping[str, int]) -> list[int | str]:
    """Return each node once, by its number, or by its name if the page has no facts of it."""
    return [numbers.get(name, shown(name)) for name in dict.fromkeys(names)]
