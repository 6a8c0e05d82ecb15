"""Blocks of layers that repeat, one after the other.

    affine_1 relu_1 affine_2 relu_2 affine_3 relu_3      ->      (affine relu) x 3

Layers are equal if their nodes compute the same from the same places: from parameters of equal
types, and from layers equally far before.  So a shortcut that repeats with a block is part of it,
and one that does not ends the block.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op, Source, attributes
from graphc.ops.source import Constant

LONGEST = 32
"""The most layers of a block; longer blocks are not looked for."""


@dataclass(frozen=True, slots=True)
class Block:
    """`size` layers from number `start` on that occur `times` times."""

    start: int
    size: int
    times: int

    @property
    def again(self) -> slice:
        """The layers after those of the first time."""
        return slice(self.start + self.size, self.start + self.size * self.times)


def repeated(layers: Sequence[Hashable], fewest: int) -> list[Block]:
    """Return the blocks that occur at least `fewest` times, in order."""
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
    """Return, for each layer, how many from it on equal the layer that is `size` later."""
    run, found = 0, [0] * len(layers)
    for at in range(len(layers) - size - 1, -1, -1):
        run = run + 1 if layers[at] == layers[at + size] else 0
        found[at] = run
    return found


def _longest(runs: Sequence[Sequence[int]], at: int, fewest: int) -> Block | None:
    """Return the block from `at` on that covers the most layers; of several, the smallest."""
    blocks = (Block(at, size, 1 + run[at] // size) for size, run in enumerate(runs, start=1))
    often = [block for block in blocks if block.times >= fewest]
    return max(often, key=lambda block: block.size * block.times, default=None)


def signatures(graph: Graph, layer_of: Mapping[str, str], order: Sequence[str]) -> list[int]:
    """Return a number for each layer of the order; equal layers have equal numbers.

    `layer_of` names the layer of each node that counts.
    """
    layers = _Layers(graph, layer_of, order)
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(layers.signature(name), len(numbers)) for name in order]


class _Layers:
    """The nodes of each layer, and the layer and position of each node."""

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
        """Return what the layer's nodes compute, and from what; an input equals only itself."""
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
        """Return how many layers before an operand is, and which node of its layer.

        For an operand outside all layers, return its op if it is a constant, else its type.
        """
        if operand in self.where:
            place, number = self.where[operand]
            return here - place, number
        node = self.graph[operand]
        return node.op if isinstance(node.op, Constant) else node.type


def _kind(op: Op) -> Hashable:
    """Return the op, without the stream of a dropout: each has its own, which does not matter."""
    known = attributes(op)
    if "stream" not in known:
        return op
    return type(op), tuple([(key, value) for key, value in known.items() if key != "stream"])
