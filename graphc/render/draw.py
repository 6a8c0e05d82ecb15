"""From graphs to a picture: which nodes are drawn, how finely, and on which card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod
from typing import Literal

from graphc.graph import Graph, Node
from graphc.op import Source
from graphc.ops.source import Constant, Input, Parameter, State
from graphc.render.homes import Homes
from graphc.render.picture import REST, Card, Kind, LayerBox, Link, Picture, Row, Side
from graphc.tensor_type import shape_text

NODE_LIMIT = 1000
"""More nodes than this are drawn as one card a layer and direction."""
LAYER_LIMIT = 1000
"""Of more layers than this only the first and the last ones are drawn."""
ENDS = 20
"""How many layers are drawn at each end of such a graph."""

Key = tuple[Side, str]
Level = Literal["nodes", "layers", "ends"]
BACKWARD = ("backward", "wrt")


def picture(declared: Graph, compiled: Graph | None = None) -> Picture:
    """The picture of a declared graph, or of what it became: forward beside backward."""
    return _Drawing(declared, declared if compiled is None else compiled).picture()


class _Drawing:
    """One graph being drawn."""

    def __init__(self, declared: Graph, graph: Graph) -> None:
        self.graph = graph
        whole = not graph.gradients and (declared is graph or not graph.outputs)
        roots = [*graph.outputs.values(), *graph.gradients.values()]
        reached = set(graph.nodes) if whole else graph.upstream(roots)
        self.forward = reached if whole else graph.forward()
        self.homes = Homes(declared, graph, self.forward)
        self.sides = {n.name: self._side(n) for n in graph if n.name in reached and self._drawn(n)}
        self.layers = {name: self.homes.layer(name) for name in self.sides}
        self.order = _layer_order(declared, self.layers.values())
        self.level = _level(len(self.sides), len(self.order))
        ends = self.order[:ENDS] + self.order[-ENDS:]
        self.kept = frozenset(ends if self.level == "ends" else self.order)
        self.unreached = sum(not isinstance(n.op, Source) for n in graph if n.name not in reached)

    def _drawn(self, node: Node) -> bool:
        """Ops and inputs are drawn; other sources stand in the cards that read them."""
        if not isinstance(node.op, Source) or isinstance(node.op, Input):
            return True
        read = self.graph.users[node.name] or isinstance(node.op, Constant)
        return not read or node.name in self.graph.outputs.values()

    def _side(self, node: Node) -> Side:
        if node.name in self.forward:
            return "input" if isinstance(node.op, Source) else "forward"
        origin = self.homes.known.get(self.homes.origin(node.name))
        return "wrt" if origin is not None and isinstance(origin.op, Parameter) else "backward"

    def _key(self, name: str) -> Key:
        """The card that a node stands on."""
        side, layer = self.sides[name], self.layers[name]
        if layer not in self.kept:
            return "backward" if side in BACKWARD else "forward", REST
        if self.level == "nodes":
            return side, layer if side == "wrt" else name
        return "backward" if side == "wrt" else side, layer

    def picture(self) -> Picture:
        """The finished picture."""
        position = {layer: i for i, layer in enumerate(self.order)}
        names: dict[Key, list[str]] = {}
        for name in sorted(self.sides, key=lambda name: position[self.layers[name]]):
            names.setdefault(self._key(name), []).append(name)
        ids = {key: f"n{i}" for i, key in enumerate(names)}
        shown: set[str] = set()
        cards = tuple(self._card(ids[key], key, group, shown) for key, group in names.items())
        layers = {name: self._box(name, i) for name, i in position.items() if name in self.kept}
        rows = tuple(sorted(_rows(cards), key=lambda row: int(row[0][1:])))
        return Picture(
            self.graph.name, cards, self._links(ids), layers, rows, tuple(self._caption())
        )

    def _card(self, id: str, key: Key, names: list[str], shown: set[str]) -> Card:
        layer = REST if key[1] == REST else self.layers[names[0]]
        nodes = tuple(self.graph[name] for name in names)
        folded = layer == REST or (self.level != "nodes" and key[0] != "input")
        forward = key[0] not in BACKWARD
        rows = tuple(self._sources(nodes, shown)) if forward and layer != REST else ()
        return Card(id, key[0], layer, nodes, rows, tuple(self._marks(names)), folded)

    def _sources(self, nodes: Iterable[Node], shown: set[str]) -> Iterable[Row]:
        """What the nodes read; a parameter is counted where it is read first."""
        for name in dict.fromkeys(operand for node in nodes for operand in node.inputs):
            source = self.graph[name]
            if name not in self.sides and isinstance(source.op, Source):
                yield _row(source, name in shown)
                shown.add(name)

    def _marks(self, names: Iterable[str]) -> Iterable[str]:
        wanted = set(names)
        for public, name in self.graph.outputs.items():
            if name in wanted:
                yield f"{'loss' if public in self.graph.losses else 'output'}: {public}"

    def _links(self, ids: Mapping[Key, str]) -> tuple[Link, ...]:
        found: dict[tuple[str, str, Kind], Link] = {}
        labelled: set[str] = set()
        for name in self.sides:
            for operand in self.graph[name].inputs:
                if operand not in self.sides:
                    continue
                link = self._link(operand, name, ids)
                place = link.source, link.target, link.kind
                if link.source == link.target or place in found:
                    continue
                if link.kind == "saved" and operand not in labelled:
                    link = replace(link, labelled=True)
                    labelled.add(operand)
                found[place] = link
        return tuple(found.values())

    def _link(self, operand: str, name: str, ids: Mapping[Key, str]) -> Link:
        kind: Kind = "flow"
        if self.sides[name] in BACKWARD:
            kind = "gradient" if self.sides[operand] in BACKWARD else "saved"
        return Link(ids[self._key(operand)], ids[self._key(name)], kind, self.graph[operand])

    def _box(self, layer: str, index: int) -> LayerBox:
        node = self.homes.known.get(layer) or self.graph.nodes.get(layer)
        return LayerBox(f"c{index}", layer, node.op.name if node else "", tuple(self.homes.made_of(layer)))

    def _caption(self) -> Iterable[str]:
        parameters = [prod(n.op.shape) for n in self.graph if isinstance(n.op, Parameter)]
        yield f"{sum(parameters):,} parameters"
        if self.unreached:
            yield f"{self.unreached:,} nodes that only update states are not drawn"
        hidden = len(self.order) - len(self.kept)
        if hidden:
            yield f"{hidden:,} of {len(self.order):,} layers, between first and last, are not drawn"
        if self.level != "nodes":
            yield f"{len(self.sides):,} nodes are folded into one card a layer and direction"


def _level(nodes: int, layers: int) -> Level:
    if nodes <= NODE_LIMIT:
        return "nodes"
    return "layers" if layers <= LAYER_LIMIT else "ends"


def _layer_order(declared: Graph, used: Iterable[str]) -> list[str]:
    """The layers in declared order, then those that only the compiled graph has."""
    found = dict.fromkeys(used)
    known = [node.name for node in declared if node.name in found]
    return [*known, *(name for name in found if name not in declared)]


def _row(source: Node, again: bool) -> Row:
    op = source.op
    if isinstance(op, Constant) and op.shape == ():
        return Row("constant", source.name, f"= {op.array():.6g}")
    shape = shape_text(source.type.shape)
    if isinstance(op, Parameter):
        return Row("parameter", source.name, shape, 0 if again else prod(op.shape))
    return Row("state" if isinstance(op, State) else op.name, source.name, shape)


def _rows(cards: tuple[Card, ...]) -> Iterable[tuple[str, ...]]:
    """A value beside its gradient, and those of its layer's parameters on their right."""
    by_name = {node.name: card for card in cards for node in card.nodes}
    wrt = {card.layer: card for card in cards if card.side == "wrt"}
    placed: set[str] = set()
    for card in sorted(cards, key=lambda card: card.side in BACKWARD):
        if card.id in placed:
            continue
        row = [card]
        gradients = (by_name.get(f"d_{node.name}") for node in reversed(card.nodes))
        row += [g for g in gradients if g and g.side == "backward" and g.id not in placed][:1]
        main = any(node.name in (card.layer, f"d_{card.layer}") for node in card.nodes)
        if main and card.side != "wrt" and card.layer in wrt:
            row.append(wrt.pop(card.layer))
        ids = tuple(dict.fromkeys(other.id for other in row if other.id not in placed))
        placed.update(ids)
        yield ids
