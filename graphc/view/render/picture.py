"""The contents of a picture, before any layout: layers, cards in them, links between the cards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphc.ir.graph import Node

Side = Literal["input", "forward", "backward", "wrt"]
"""The columns: inputs, forward values, their gradients, and gradients of parameters."""
Kind = Literal["flow", "gradient", "saved"]


@dataclass(frozen=True, slots=True)
class Fold:
    """Layers that are not drawn one by one but share one card for each direction.

    They repeat the block of `size` layers above them `times` times.  With `times` 0 they do not
    repeat anything, but are the middle of a long net.
    """

    layers: tuple[str, ...]
    size: int = 0
    times: int = 0

    @property
    def text(self) -> str:
        """The text on the card that describes its layers."""
        if not self.times:
            return "layers not drawn"
        block = "the layer" if self.size == 1 else f"the {self.size} layers"
        return f"{block} above, {self.times:,} more time{'s' if self.times > 1 else ''}"


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
    """The layer's name; empty for a fold."""
    nodes: tuple[Node, ...]
    rows: tuple[Row, ...] = ()
    marks: tuple[str, ...] = ()
    """The purposes of the card: `output: scores`, `loss: loss`."""
    summed: bool = False
    """Whether the nodes are only counted."""
    fold: Fold | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """An arrow from the card that makes values to one that reads them."""

    source: str
    target: str
    kind: Kind
    values: tuple[Node, ...]
    kept: tuple[Node, ...] = ()
    """The values saved for the backward pass that no earlier link mentions."""


@dataclass(frozen=True, slots=True)
class LayerBox:
    """A layer with its cards from left to right; `made_of` names the layers fused into it."""

    name: str
    op: str
    made_of: tuple[str, ...]
    cards: tuple[Card, ...]
    fold: Fold | None = None

    @property
    def text(self) -> str:
        """The name of the layer in a line of text."""
        return self.fold.text if self.fold else " + ".join(self.made_of)


@dataclass(frozen=True, slots=True)
class Picture:
    """All that is drawn, in an order that depends on the graph alone."""

    name: str
    layers: tuple[LayerBox, ...]
    links: tuple[Link, ...]
    caption: tuple[str, ...]

    @property
    def folds(self) -> tuple[Fold, ...]:
        """The blocks that are drawn once for all their repeats."""
        return tuple([box.fold for box in self.layers if box.fold and box.fold.times])
