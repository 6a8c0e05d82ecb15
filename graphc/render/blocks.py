"""Blocks of layers that come again and again, one after the other.

    affine_1 relu_1 affine_2 relu_2 affine_3 relu_3      ->      (affine relu) x 3

Layers are equal where their nodes compute the same from the same places: from parameters of equal
types, and from layers that stand equally far before.  So a shortcut is part of a block where it
comes again with it, and ends one where it does not.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from graphc.graph import Graph, Node
from graphc.op import Op, Source, attributes
from graphc.ops.source import Constant

LONGEST = 32
"""Longer blocks are not looked for."""


@dataclass(frozen=True, slots=True)
class Block:
    """`size` layers from the number `start` on that come `times` times."""

    start: int
    size: int
    times: int

    @property
    def again(self) -> slice:
        """The layers after those of the first time."""
        return slice(self.start + self.size, self.start + self.size * self.times)


def repeated(layers: Sequence[Hashable], fewest: int) -> list[Block]:
    """The blocks that come `fewest` times at least, in order."""
    runs = [_runs(layers, size) for size in range(1, LONGEST + 1)]
    found: list[Block] = []
    at = 0
    while at < len(layers):
        block = _longest(runs, at, fewest)
        if block is not None:
            found.append(block)
        at = at + 1 if block is None else block.again.stop
    return found


def _runs(layers: Sequence[Hashable], size: int) -> list[int]:
    """For each layer: how many from it on equal the one that comes `size` later."""
    run, found = 0, [0] * len(layers)
    for at in range(len(layers) - size - 1, -1, -1):
        run = run + 1 if layers[at] == layers[at + size] else 0
        found[at] = run
    return found


def _longest(runs: Sequence[Sequence[int]], at: int, fewest: int) -> Block | None:
    """The block from `at` on that covers the most layers; of several the smallest."""
    blocks = (Block(at, size, 1 + run[at] // size) for size, run in enumerate(runs, start=1))
    often = [block for block in blocks if block.times >= fewest]
    return max(often, key=lambda block: block.size * block.times, default=None)


def signatures(graph: Graph, layer_of: Mapping[str, str], order: Sequence[str]) -> list[int]:
    """A number for each layer of the order; equal layers have equal ones.

    `layer_of` names the layer of each node that counts.
    """
    layers = _Layers(graph, layer_of, order)
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(layers.signature(name), len(numbers)) for name in order]


class _Layers:
    """The nodes of each layer, and where each stands."""

    def __init__(self, graph: Graph, layer_of: Mapping[str, str], order: Sequence[str]) -> None:
        self.graph = graph
        self.places = {layer: place for place, layer in enumerate(order)}
        self.nodes: dict[str, list[Node]] = {layer: [] for layer in order}
        self.where: dict[str, tuple[int, int]] = {}
        for node in graph:
            layer = layer_of.get(node.name)
            if layer is not None:
                self.where[node.name] = self.places[layer], len(self.nodes[layer])
                self.nodes[layer].append(node)

    def signature(self, layer: str) -> Hashable:
        """What its nodes compute, and from what; an input is like no other."""
        nodes = self.nodes[layer]
        if not nodes or isinstance(nodes[0].op, Source):
            return layer
        here = self.places[layer]
        return tuple(
            [
                (_kind(node.op), node.type, tuple([self._read(name, here) for name in node.inputs]))
                for node in nodes
            ]
        )

    def _read(self, operand: str, here: int) -> Hashable:
        """How far before, and which node there; of what stands in no layer, what it is."""
        if operand in self.where:
            place, number = self.where[operand]
            return here - place, number
        node = self.graph[operand]
        return node.op if isinstance(node.op, Constant) else node.type


def _kind(op: Op) -> Hashable:
    """The op; each dropout draws from a stream of its own, which makes no difference here."""
    known = attributes(op)
    if "stream" not in known:
        return op
    return type(op), tuple([(key, value) for key, value in known.items() if key != "stream"])
