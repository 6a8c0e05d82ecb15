"""The contents of a picture of a graph: layers, cards in the layers, and links between cards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from graphc.base.errors import counted
from graphc.declare.track import tracked
from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import shape_text
from graphc.ops.source import Constant
from graphc.view.render.layers import LayerIndex, repeated, signatures
from graphc.view.render.loops import Opened, opened
from graphc.view.render.style import listed, short

NODE_LIMIT = 1000
"""The most nodes that cards list; above it a card gives only their number."""
LAYER_LIMIT = 1000
"""The most layers that are all drawn; above it only the first and the last ones are."""
ENDS = 20
"""The number of layers drawn at each end of such a graph."""
FEWEST = 4
"""The fewest repeats at which a block is folded; rarer ones are drawn each time."""

Side = Literal["input", "forward", "backward", "wrt"]
"""The columns: inputs, forward values, their gradients, and gradients of parameters."""
Kind = Literal["flow", "gradient", "saved", "carried"]

Key = tuple[int, Side]
"""A card: the number of its layer or fold, from top to bottom, and its column."""
COLUMNS: tuple[Side, ...] = ("input", "forward", "backward", "wrt")
BACKWARD = ("backward", "wrt")


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
        return f"{block} above, {counted(self.times, 'more time')}"


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
    """True if the nodes are only counted."""
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
    steps: int = 1
    """The number of steps for which they are kept, in loops."""


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
    """The contents of a drawing, in an order that depends on the graph alone."""

    name: str
    layers: tuple[LayerBox, ...]
    links: tuple[Link, ...]
    caption: tuple[str, ...]
    loops: Mapping[str, str] = field(default_factory=dict)
    """The words on the frame of each loop, by its path."""

    @property
    def cards(self) -> tuple[Card, ...]:
        """The cards of all layers, in their order."""
        return tuple([card for box in self.layers for card in box.cards])

    @property
    def folds(self) -> tuple[Fold, ...]:
        """The blocks that are drawn once for all their repeats."""
        return tuple([box.fold for box in self.layers if box.fold and box.fold.times])


def picture(
    declared: Graph,
    compiled: Graph | None = None,
    *,
    fold: bool = True,
    most_layers: int = LAYER_LIMIT,
    steps: bool = True,
) -> Picture:
    """Return the picture of a declared graph, or of its compiled form: forward beside backward.

    With `fold` a repeated block is drawn once; without `steps` loops are drawn as results alone.
    """
    known = opened(declared) if steps else Opened(declared)
    drawn = known
    if compiled is not None:
        drawn = opened(compiled, known) if steps else Opened(compiled)
    return _Drawing(known, drawn, fold, most_layers).picture()


class _Drawing:
    """The drawing of one graph."""

    def __init__(self, known: Opened, drawn: Opened, fold: bool, most_layers: int) -> None:
        self.opened = drawn
        declared, graph = known.graph, drawn.graph
        self.graph = graph
        whole = not graph.gradients and (declared is graph or not graph.outputs)
        roots = [*graph.outputs.values(), *graph.gradients.values()]
        reached = set(graph.nodes) if whole else drawn.upstream(roots)
        self.unreached = sum(n.name not in reached and not n.op.is_source for n in graph)
        self.forward = reached if whole else drawn.forward()
        self.index = LayerIndex(declared, graph, self.forward, known.joined())
        self.sides = {n.name: self._side(n) for n in graph if n.name in reached and self._drawn(n)}
        self.layers = {name: self.index.layer(name) for name in self.sides}
        self.order = _layer_order(declared, self.layers.values())
        self.targets = [each.target.name for each in tracked(declared)]
        self.omitted = [] if declared is graph else _omitted(declared, self.order, self.index)
        self.parts = self._parts(fold, most_layers)
        self.places = {n: i for i, part in enumerate(self.parts) for n in _layers_of(part)}
        single = sum(isinstance(self._part(layer), str) for layer in self.layers.values())
        self.summed = single if single > NODE_LIMIT else 0

    def _parts(self, fold: bool, most_layers: int) -> list[str | Fold]:
        """Return the layers and folds to draw, from top to bottom."""
        parts: list[str | Fold] = list(self._blocks()) if fold else list(self.order)
        if len(parts) > most_layers:
            middle = [layer for part in parts[ENDS:-ENDS] for layer in _layers_of(part)]
            parts[ENDS:-ENDS] = [Fold(tuple(middle))]
        return parts

    def _blocks(self) -> Iterator[str | Fold]:
        """Yield the layers, and after the first of each repeated block a fold of the others."""
        forward = {n: layer for n, layer in self.layers.items() if self.sides[n] not in BACKWARD}
        at = 0
        for block in repeated(signatures(self.graph, forward, self.order), FEWEST):
            yield from self.order[at : block.repeats.start]
            yield Fold(tuple(self.order[block.repeats]), block.size, block.times - 1)
            at = block.repeats.stop
        yield from self.order[at:]

    def _drawn(self, node: Node) -> bool:
        """Return whether a node is drawn by itself.

        Ops and inputs are, and so are sources that are outputs or that nothing reads.  Other
        sources are lines on the cards of their users; an unread constant is not shown.
        """
        if not node.op.is_source or node.op.is_input:
            return True
        read = self.graph.users[node.name] or node.op.is_constant
        return not read or node.name in self.graph.outputs.values()

    def _side(self, node: Node) -> Side:
        if node.name in self.forward:
            return "input" if node.op.is_source else "forward"
        origin = self.index.known.get(self.index.origin(node.name))
        return "wrt" if origin is not None and origin.op.is_parameter else "backward"

    def _key(self, name: str) -> Key:
        """Return the card that a node is on."""
        layer, side = self.layers[name], self.sides[name]
        if isinstance(self._part(layer), Fold):
            side = "backward" if side in BACKWARD else "forward"
        return self.places[layer], side

    def _part(self, layer: str) -> str | Fold:
        return self.parts[self.places[layer]]

    def picture(self) -> Picture:
        """Return the finished picture."""
        names: dict[Key, list[str]] = {}
        for name in self.sides:
            names.setdefault(self._key(name), []).append(name)
        keys = sorted(names, key=lambda key: (key[0], COLUMNS.index(key[1])))
        ids = {key: f"c{i}" for i, key in enumerate(keys)}
        shown: set[str] = set()
        cards: list[list[Card]] = [[] for _ in self.parts]
        for key in keys:
            cards[key[0]].append(self._card(ids[key], key, names[key], shown))
        boxes = tuple(self._box(*pair) for pair in zip(self.parts, cards, strict=True))
        frames = {path: frame.text for path, frame in self.opened.frames.items()}
        caption = tuple(self._caption())
        return Picture(self.graph.name, boxes, self._links(ids), caption, frames)

    def _card(self, id: str, key: Key, names: list[str], shown: set[str]) -> Card:
        part, side = self.parts[key[0]], key[1]
        layer, fold = (part, None) if isinstance(part, str) else ("", part)
        nodes = tuple(self.graph[name] for name in names)
        rows = tuple(self._sources(nodes, shown)) if side not in BACKWARD else ()
        summed = bool(self.summed) and side != "input"
        marks = tuple(self._marks(names))
        return Card(id, side, layer, nodes, rows, marks, summed, fold)

    def _sources(self, nodes: Iterable[Node], shown: set[str]) -> Iterator[Row]:
        """Yield the sources that the nodes read; a parameter is counted where it is first read."""
        for name in dict.fromkeys(operand for node in nodes for operand in node.inputs):
            source = self.graph[name]
            if name not in self.sides and source.op.is_source:
                yield _row(source, name in shown)
                shown.add(name)

    def _marks(self, names: Iterable[str]) -> Iterator[str]:
        wanted = set(names)
        if wanted & self.opened.at_once:
            yield "all steps at once"
        for public, name in self.graph.outputs.items():
            if name in wanted:
                yield f"{'loss' if public in self.graph.losses else 'output'}: {public}"

    def _links(self, ids: Mapping[Key, str]) -> tuple[Link, ...]:
        found: dict[tuple[str, str, Kind], dict[str, bool]] = {}
        mentioned: set[str] = set()
        for name in self.sides:
            for operand in self.graph[name].inputs:
                if operand not in self.sides or self._key(operand) == self._key(name):
                    continue
                kind = self._kind(operand, name)
                place = ids[self._key(operand)], ids[self._key(name)], kind
                found.setdefault(place, {}).setdefault(operand, operand not in mentioned)
                if kind == "saved":
                    mentioned.add(operand)
        for after, before in self.opened.carried:
            if after in self.sides and before in self.sides:
                ends = self._key(after), self._key(before)
                if ends[0] != ends[1]:
                    found.setdefault((ids[ends[0]], ids[ends[1]], "carried"), {})[before] = False
        return tuple(self._link(*place, values) for place, values in found.items())

    def _kind(self, operand: str, name: str) -> Kind:
        if self.sides[name] not in BACKWARD:
            return "flow"
        return "gradient" if self.sides[operand] in BACKWARD else "saved"

    def _link(self, source: str, target: str, kind: Kind, values: Mapping[str, bool]) -> Link:
        nodes = tuple(self.graph[name] for name in values)
        kept = tuple(node for node in nodes if values[node.name]) if kind == "saved" else ()
        return Link(source, target, kind, nodes, kept, self.opened.steps_of(nodes[0].name))

    def _box(self, part: str | Fold, cards: Sequence[Card]) -> LayerBox:
        if isinstance(part, Fold):
            return LayerBox("", "", (), tuple(cards), part)
        node = self.index.known.get(part) or self.graph.nodes.get(part)
        op = node.op.name if node is not None else ""
        return LayerBox(part, op, tuple(self.index.made_of(part)), tuple(cards))

    def _caption(self) -> Iterator[str]:
        parameters = [n.type.size(1) for n in self.graph if n.op.is_parameter]
        yield counted(sum(parameters), "parameter")
        if self.unreached:
            yield f"not drawn: {counted(self.unreached, 'node')} for updates of states alone"
        if self.omitted:
            yield f"nothing left to do: {listed([short(name, 24) for name in self.omitted], 3)}"
        if self.targets:
            yield f"following others: {listed([short(name, 24) for name in self.targets], 3)}"
        if any(frame.segments > 1 for frame in self.opened.frames.values()):
            yield "loops in segments recompute one segment at a time for the backward part"
        yield from self._hidden()
        if self.summed:
            yield f"{counted(self.summed, 'node')} summed up, one card a layer and direction"

    def _hidden(self) -> Iterator[str]:
        """Yield how many layers are not drawn one by one, and why."""
        folds = [part for part in self.parts if isinstance(part, Fold)]
        of = f"of {counted(len(self.order), 'layer')}"
        repeats = sum(len(fold.layers) for fold in folds if fold.times)
        if repeats:
            yield f"{repeats:,} {of} repeat those above them, and are folded"
        middle = sum(len(fold.layers) for fold in folds if not fold.times)
        if middle:
            yield f"not drawn one by one: {middle:,} {of}, in the middle"


def _layers_of(part: str | Fold) -> Sequence[str]:
    return (part,) if isinstance(part, str) else part.layers


def _omitted(declared: Graph, drawn: Iterable[str], index: LayerIndex) -> list[str]:
    """Return the declared layers that the compiled graph omits, such as dropout in inference."""
    present = {*drawn, *index.merged, *(each.next.name for each in tracked(declared))}
    return [n.name for n in declared if n.name not in present and not n.op.is_source]


def _layer_order(declared: Graph, used: Iterable[str]) -> list[str]:
    """Return the layers in declared order, then the layers that only the compiled graph has."""
    found = dict.fromkeys(used)
    known = [node.name for node in declared if node.name in found]
    return [*known, *(name for name in found if name not in declared)]


def _row(source: Node, counted: bool) -> Row:
    op = source.op
    if isinstance(op, Constant) and op.shape == ():
        return Row(op.name, source.name, f"= {op.array():.6g}")
    shape = shape_text(source.type.shape)
    count = source.type.size(1) if op.is_parameter and not counted else 0
    return Row(op.name, source.name, shape, count)
