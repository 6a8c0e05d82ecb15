"""The layer that each node of a compiled graph belongs to, and blocks of layers that repeat."""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op, attributes

LONGEST = 32
"""The most layers of a block; longer blocks are not found."""


class LayerIndex:
    """The layers of a picture, and the layer of every node that is drawn in them.

    Names decide: `bn1.mean` is a part of `bn1`, `d_bn1` and `d_bn1.x` are gradients at `bn1`.  A
    source is drawn with the layer it is named after, or with the first that reads it.  A layer that
    is `joined` to another is drawn there.
    """

    def __init__(
        self,
        declared: Graph,
        compiled: Graph,
        forward: Container[str],
        joined: Mapping[str, str] | None = None,
    ) -> None:
        self.known: Mapping[str, Node] = _declared_nodes(declared, compiled, forward)
        self.declared = declared
        joined = {name: into for name, into in (joined or {}).items() if name in self.known}
        self.merged: dict[str, str] = joined  # `_layers_with_nodes` reads it, before any merge
        self.merged = joined | _merged(declared, _layers_with_nodes(self, compiled, forward))

    def origin(self, name: str) -> str:
        """Return the declared node that a compiled node is a part or a gradient of, else `name`."""
        rest = name
        while True:
            found = known_prefix(rest, self.known)
            if found:
                return found
            if not rest.startswith("d_"):
                return name
            rest = rest[2:]

    def layer(self, name: str) -> str:
        """Return the layer that a compiled node is drawn in."""
        origin = self.origin(name)
        node = self.known.get(origin)
        if node is not None and node.op.is_source:
            origin = self._source_layer(origin)
        return self.merged.get(origin, origin)

    def _source_layer(self, name: str) -> str:
        if self.known[name].op.name == "input":
            return name
        owner = known_prefix(name.rpartition(".")[0], self.known)
        users = self.declared.users.get(name, ()) if name in self.declared else ()
        if owner and (owner in users or not users):
            return owner
        return users[0] if users else name

    def made_of(self, layer: str) -> list[str]:
        """Return the layers that a fused layer is made of, in declared order."""
        parts = [*(name for name, into in self.merged.items() if into == layer), layer]
        return sorted(parts, key=lambda name: self._places.get(name, 0)) if parts[1:] else parts

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {name: place for place, name in enumerate(self.known)}


def known_prefix(name: str, known: Container[str]) -> str:
    """Return the longest path prefix of `name` that is known, or ""."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def _declared_nodes(
    declared: Graph, compiled: Graph, forward: Container[str]
) -> Mapping[str, Node]:
    """Return the declared nodes; of a compiled graph alone, forward nodes that are not parts."""
    if declared is not compiled:
        return declared.nodes
    return {
        node.name: node
        for node in compiled
        if node.name in forward
        and (node.op.is_source or not known_prefix(node.name.rpartition(".")[0], compiled))
    }


def _layers_with_nodes(
    index: LayerIndex, compiled: Graph, forward: Container[str]
) -> dict[str, str]:
    """Return the layers that have forward nodes, each with the op of the node of its name."""
    found: dict[str, str] = {}
    for node in compiled:
        if node.name in forward and not node.op.is_source:
            layer = index.layer(node.name)
            found.setdefault(layer, "")
            if node.name == layer:
                found[layer] = node.op.name
    return found


def _merged(declared: Graph, working: Mapping[str, str]) -> dict[str, str]:
    """Return the layers that were fused into their only user, whose op then includes their name."""
    into: dict[str, str] = {}
    for node in reversed(list(declared)):
        users = set(declared.users[node.name])
        if node.name in working or node.op.is_source or len(users) != 1:
            continue
        user = users.pop()
        target = into.get(user, user)
        if node.op.name in working.get(target, ""):
            into[node.name] = target
    return dict(reversed(into.items()))


@dataclass(frozen=True, slots=True)
class Block:
    """`size` layers from number `start` on that occur `times` times."""

    start: int
    size: int
    times: int

    @property
    def repeats(self) -> slice:
        """The layers after the block's first occurrence."""
        return slice(self.start + self.size, self.start + self.size * self.times)


def repeated(layers: Sequence[Hashable], fewest: int) -> list[Block]:
    """Return the blocks that occur at least `fewest` times, in order."""
    runs = [_runs(layers, size) for size in range(1, LONGEST + 1)]
    found: list[Block] = []
    at = 0
    while at < len(layers):
        block = _block_from(runs, at, fewest)
        if block is not None:
            found.append(block)
        at = at + 1 if block is None else block.repeats.stop
    return found


def _runs(layers: Sequence[Hashable], size: int) -> list[int]:
    """Return, for each layer, how many from it on equal the layer that is `size` later."""
    run, found = 0, [0] * len(layers)
    for at in range(len(layers) - size - 1, -1, -1):
        run = run + 1 if layers[at] == layers[at + size] else 0
        found[at] = run
    return found


def _block_from(runs: Sequence[Sequence[int]], at: int, fewest: int) -> Block | None:
    """Return the block from `at` on that covers the most layers; of several, the smallest."""
    blocks = (Block(at, size, 1 + run[at] // size) for size, run in enumerate(runs, start=1))
    often = [block for block in blocks if block.times >= fewest]
    return max(often, key=lambda block: block.size * block.times, default=None)


def signatures(graph: Graph, layer_of: Mapping[str, str], order: Sequence[str]) -> list[int]:
    """Return a number a layer, the same for equal ones; `layer_of` has the nodes that count."""
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
        if not nodes or nodes[0].op.is_source:
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

        For an input further above return its name.  For an operand outside all layers return its
        op if it is a constant, else its type.
        """
        if operand in self.where:
            place, number = self.where[operand]
            far = self.graph[operand].op.is_input and here - place > 1
            return operand if far else (here - place, number)
        node = self.graph[operand]
        return node.op if node.op.is_constant else node.type


def _kind(op: Op) -> Hashable:
    """Return the op without the random stream of a dropout, which differs in equal layers."""
    known = attributes(op)
    if "stream" not in known:
        return op
    return type(op), tuple([(key, value) for key, value in known.items() if key != "stream"])
