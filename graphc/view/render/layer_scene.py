"""The scene of a graph: a box for each layer, in it a card for each direction, and the arrows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby

from graphc.ir.graph import Graph
from graphc.view.render.cards import MOST_LINES, Owned, bytes_text, card_lines, local
from graphc.view.render.draw import ENDS, LAYER_LIMIT, Card, LayerBox, Link, Picture, Side, picture
from graphc.view.render.loops import opened
from graphc.view.render.scene import Arrow, Box, Frame, Passage, Scene
from graphc.view.render.style import (
    ADVANCE_11,
    LIGHT,
    Line,
    Run,
    line_markup,
    line_text,
    lines_markup,
    muted,
    printable,
    sentence,
    short,
)

MOST_WORDS = 2000
"""The most lines of a picture in words."""
DEEPEST = 8
"""The depth to which blocks are framed; names may nest more deeply."""
LEAST: Mapping[Side, int] = {"input": 0, "forward": 26, "backward": 26, "wrt": 0}
"""The least width of each column, in characters."""
WIDEST = 46
"""The greatest width, in characters, that a column is stretched to."""
GAP = 6
"""The least width between two columns, in characters."""
_WAYS = {
    "flow": "",
    "gradient": ", gradient",
    "saved": ", saved for backward",
    "carried": ", carried to the next step",
}
_VERBS = {
    "flow": "goes to",
    "gradient": "gradient goes to",
    "saved": "saved for backward of",
    "carried": "at the next step goes to",
}
_LEGEND = (
    ("flow", Run("values (solid)", "forward")),
    ("gradient", Run("gradients (dashed)", "backward")),
    ("saved", Run("saved (dotted)", "saved")),
    ("carried", Run("carried to the next step (dashed)", "forward")),
)


def graph_scene(
    graph: Graph,
    backward: Graph | None = None,
    fold: bool = True,
    most_layers: int = LAYER_LIMIT,
    steps: bool = True,
) -> Scene:
    """Return the scene of a graph; `backward` is the compiled graph, gradients included, if any.

    With `fold` a repeated block of layers is drawn once; with `steps` the steps of loops are drawn.
    If it is too tangled to lay out in time, they are not, or only the two ends of the graph are.
    """
    shown = picture(graph, backward, fold=fold, most_layers=most_layers, steps=steps)
    simpler: Callable[[], Scene] | None = None
    if shown.loops:
        simpler = partial(graph_scene, graph, backward, fold, most_layers, steps=False)
    elif min(most_layers, len(shown.layers)) > 2 * ENDS:
        simpler = partial(graph_scene, graph, backward, fold, 2 * ENDS, steps)
    drawing = _Drawing(shown)
    return Scene(
        shown.name,
        tuple((muted(text),) for text in shown.caption),
        drawing.items(),
        tuple(drawing.arrows()),
        legend=_legend({link.kind for link in shown.links}),
        simpler=simpler,
        seconds=10 + len(shown.layers) / 50,
        spacing=("0.4", "0.35", "0.7"),
        picture=shown,
    )


def shown_graphs(graph: Graph, backward: Graph | None = None) -> tuple[Graph, ...]:
    """Return the graphs whose nodes a scene shows: the compiled one first, loops opened."""
    declared = opened(graph)
    compiled = () if backward is None else (opened(backward, declared).graph,)
    return (*compiled, declared.graph)


def _legend(kinds: set[str]) -> Line:
    """Return what the lines of an arrow mean, if there is more than one kind."""
    if kinds.isdisjoint(("gradient", "carried")):
        return ()
    words = [run for kind, run in _LEGEND if kind in kinds]
    return tuple(part for run in words for part in (muted(" - "), run))[1:]


class _Drawing:
    """The boxes and arrows; cards of one column are equally wide, so columns are straight."""

    def __init__(self, shown: Picture) -> None:
        self.picture = shown
        self.lines = {card.id: card_lines(card) for card in shown.cards}
        self.columns = {side: self._column(side) for side in LEAST}
        self.places = {card.id: i for i, box in enumerate(shown.layers) for card in box.cards}
        self.within: dict[str, list[Link]] = {}
        for link in shown.links:
            if self.places[link.source] == self.places[link.target]:
                self.within.setdefault(link.target, []).append(link)
        inside = [link for some in self.within.values() for link in some]
        self.gap = max((len(_size(link)) for link in inside), default=GAP)

    def _column(self, side: Side) -> int:
        cards = [card for card in self.picture.cards if card.side == side]
        widths = [len(line_text(line)) for card in cards for _, line in self.lines[card.id]]
        return min(WIDEST, max([LEAST[side], *widths]))

    def items(self) -> Sequence[Box | Frame]:
        """Return the boxes in the frames of the blocks that their names are paths of."""
        paths = (box.name.split("/")[:-1][:DEEPEST] for box in self.picture.layers)
        boxes = (self._box(index, box) for index, box in enumerate(self.picture.layers))
        return self._framed(list(zip(paths, boxes, strict=True)), "")

    def _framed(self, boxes: Sequence[tuple[list[str], Box]], above: str) -> list[Box | Frame]:
        """Return boxes without a path, then frames; those of loops say the number of steps."""
        inner: dict[str, list[tuple[list[str], Box]]] = {}
        for path, box in boxes:
            if path:
                inner.setdefault(path[0], []).append((path[1:], box))
        found: list[Box | Frame] = [box for path, box in boxes if not path]
        for name, some in inner.items():
            steps = self.picture.loops.get(above + name)
            heading = Run(short(name), bold=True), muted(f"  {steps}" if steps else "")
            look = "block" if steps is None else "loop"
            found.append(Frame(heading, self._framed(some, f"{above}{name}/"), look))
        return found

    def _box(self, index: int, box: LayerBox) -> Box:
        op = re.sub("[^a-z0-9-]", "-", box.op.lower())
        nodes = [node for card in box.cards for node in card.nodes][:MOST_LINES]
        title = box.text if box.fold else "\n".join(map(sentence, nodes))
        headed = len(box.cards) > 1 or box.cards[0].side != "input"
        return Box(
            f"r{index}",
            tuple(line for card in box.cards for _, line in self.lines[card.id]),
            "layer",
            title,
            kind=op,
            markup=self._layer(box) if headed else self._card(box.cards[0]),
            passages=tuple(
                passage for card in box.cards for passage in _passages(card, self.lines[card.id])
            ),
            headed=headed,
        )

    def _layer(self, box: LayerBox) -> str:
        """Return a layer in its frame: cards side by side, and what flows between them."""
        cells: list[str] = []
        for card in box.cards:
            if cells:
                links = self.within.get(card.id, ())
                lines = (line for link in links for line in self._arrow(link))
                into = "<br/>".join(map(line_markup, lines))
                wide = self.gap if card.side == "backward" else GAP
                cells.append(f'<td width="{ADVANCE_11 * (wide + 3):.0f}">{into}</td>')
            cells.append(f"<td>{self._card(card)}</td>")
        head = f'<tr><td colspan="{len(cells)}" align="left">{_heading(box).markup()}</td></tr>'
        return (
            f'<table border="1" cellborder="0" cellspacing="0" cellpadding="6" style="rounded"'
            f' bgcolor="{LIGHT["frame"]}" color="{LIGHT["edge"]}">'
            f"{head}<tr>{''.join(cells)}</tr></table>"
        )

    def _card(self, card: Card) -> str:
        border = "rounded" if card.side in ("input", "forward") else "rounded,dashed"
        wide = f' width="{ADVANCE_11 * self.columns[card.side] + 30:.0f}"'
        text = lines_markup([line for _, line in self.lines[card.id]])
        return (
            f'<table port="{card.id}" border="1" cellborder="0" cellspacing="0" cellpadding="5"'
            f' style="{border}" bgcolor="{LIGHT[f"{card.side}-fill"]}" color="{LIGHT[card.side]}"'
            f"{wide if card.side != 'input' else ''}><tr><td>{text}</td></tr></table>"
        )

    def _arrow(self, link: Link) -> list[Line]:
        if link.kind == "saved":
            return [(Run(text, "saved"),) for text in (_size(link), "." * (self.gap - 1) + ">")]
        return [(Run("- - ->", "backward"),)]

    def arrows(self) -> Iterator[Arrow]:
        """Yield the arrows between layers, downwards, so that layers stay in the forward order.

        Saved values do not order layers, except that an input is above all its users.
        """
        cards = {card.id: card for card in self.picture.cards}
        for link in self.picture.links:
            if self.places[link.source] != self.places[link.target]:
                yield self._between(link, cards[link.source], cards[link.target])

    def _between(self, link: Link, source: Card, target: Card) -> Arrow:
        ends = tuple(f"r{self.places[card.id]}:{card.id}" for card in (source, target))
        ways = f"{_layer(source)} to {_layer(target)}{_WAYS[link.kind]}: "
        values = ", ".join(f"{node.name} {node.type}" for node in link.values[:MOST_LINES])
        title = printable(f"{ways}{values}, {_size(link)}")
        fed, colour = source.side == "input", ""
        back = self.places[source.id] > self.places[target.id] and not fed
        against, free = link.kind == "gradient" or back, link.kind == "saved" and not fed
        sides = "ns" if against else "sn"
        label = bytes_text(link.kept, link.steps) if link.kept else ""
        if link.kind == "carried":
            against, free = False, True
            gradient = link.values[0].name.startswith("d_")
            sides, colour = ("ee", "backward") if gradient else ("ww", "forward")
            label = short(", ".join(local(node.name) for node in link.values))
        # A step's many labels would make the lines too tangled for the renderer to give them room.
        beside = link.kind == "carried" or link.steps > 1
        a, b = (f"{end}:{side}" for end, side in zip(ends, sides, strict=True))
        return Arrow(a, b, link.kind, against, free, label, beside, colour, title)


def _size(link: Link) -> str:
    return bytes_text(link.values, link.steps)


def _layer(card: Card) -> str:
    return card.fold.text if card.fold else card.layer


def _heading(box: LayerBox) -> Run:
    if box.fold is not None:
        ends = (box.fold.layers[0], box.fold.layers[-1])
        return Run(" ... ".join(short(name, 24) for name in dict.fromkeys(ends)), bold=True)
    names = [short(name.rpartition("/")[2] or name) for name in box.made_of]
    return Run(" + ".join(names), bold=True)


def _passages(card: Card, lines: Sequence[Owned]) -> Iterator[Passage]:
    """Yield the lines of a card, those of a node together."""
    role = "op fold" if card.fold else f"op {card.side}"
    wide = max(len(line_text(line)) for _, line in lines)
    titles = {row.name: printable(f"{row.name}: {row.kind}, {row.what}") for row in card.rows}
    titles |= {node.name: sentence(node) for node in card.nodes}
    for name, some in groupby(lines, key=lambda owned: owned[0]):
        title = card.fold.text if card.fold else titles.get(name, "")
        yield Passage(name, tuple(line for _, line in some), role, title, wide)


def picture_text(shown: Picture) -> str:
    """Return the words on the cards and arrows, cut if they are many."""
    lines = list(_words(shown))
    hidden = len(lines) - MOST_WORDS
    if hidden > 0:
        lines[MOST_WORDS:] = [f"... {hidden:,} more lines"]
    return "\n".join(map(printable, lines))


def _words(shown: Picture) -> Iterator[str]:
    users: dict[str, list[Link]] = {}
    layer_of = {card.id: box for box in shown.layers for card in box.cards}
    for link in shown.links:
        users.setdefault(link.source, []).append(link)
    for box in shown.layers:
        yield box.text
        for card in box.cards:
            texts = (line_text(line).strip() for _, line in card_lines(card))
            yield f"  {card.side}: {'; '.join(texts)}"
            for link in users.get(card.id, ()):
                target = layer_of[link.target]
                name = target.text if target.fold else target.name
                yield f"    {_VERBS[link.kind]} {name}, {_size(link)}"
