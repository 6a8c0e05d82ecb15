"""What a picture shows, before any layout: layers, cards in them, links between the cards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from graphc.graph import Node

Side = Literal["input", "forward", "backward", "wrt"]
Kind = Literal["flow", "gradient", "saved"]
REST = ""
"""The layer, which no declared one can be, that stands for those not drawn."""


@dataclass(frozen=True, slots=True)
class Row:
    """A parameter, state or constant, shown inside the card that reads it."""

    kind: str
    name: str
    what: str
    count: int = 0


@dataclass(frozen=True, slots=True)
class Card:
    """One box: a node, the parameter gradients of a layer, or a folded layer."""

    id: str
    side: Side
    layer: str
    nodes: tuple[Node, ...]
    rows: tuple[Row, ...] = ()
    marks: tuple[str, ...] = ()
    """What the card is for: `output: scores`, `loss: loss`."""
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """An arrow from the card that makes a value to one that reads it."""

    source: str
    target: str
    kind: Kind
    node: Node
    """What yields the value."""
    labelled: bool = False


@dataclass(frozen=True, slots=True)
class LayerBox:
    """The frame around the cards of a layer; `made_of` names those that were fused into it."""

    id: str
    name: str
    op: str
    made_of: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """All that is drawn, in an order that follows the graph alone."""

    name: str
    cards: tuple[Card, ...]
    links: tuple[Link, ...]
    layers: Mapping[str, LayerBox]
    rows: tuple[tuple[str, ...], ...]
    """Cards that stand beside each other, left to right; each card is in one row."""
    caption: tuple[str, ...]
