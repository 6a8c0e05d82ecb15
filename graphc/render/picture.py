"""What a picture shows, before any layout: layers, cards in them, links between the cards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphc.graph import Node

Side = Literal["input", "forward", "backward", "wrt"]
"""The columns: what is fed or computed, its gradients, those of the layer's parameters."""
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
    """One box: the nodes of one layer in one direction."""

    id: str
    side: Side
    layer: str
    nodes: tuple[Node, ...]
    rows: tuple[Row, ...] = ()
    marks: tuple[str, ...] = ()
    """What the card is for: `output: scores`, `loss: loss`."""
    folded: bool = False
    """Whether the nodes are only counted."""


@dataclass(frozen=True, slots=True)
class Link:
    """An arrow from the card that makes values to one that reads them."""

    source: str
    target: str
    kind: Kind
    values: tuple[Node, ...]
    kept: tuple[Node, ...] = ()
    """The values saved for the backward pass that no earlier link told of."""


@dataclass(frozen=True, slots=True)
class LayerBox:
    """A layer with its cards from left to right; `made_of` names those fused into it."""

    name: str
    op: str
    made_of: tuple[str, ...]
    cards: tuple[Card, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """All that is drawn, in an order that follows the graph alone."""

    name: str
    layers: tuple[LayerBox, ...]
    links: tuple[Link, ...]
    caption: tuple[str, ...]
