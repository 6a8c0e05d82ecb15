"""A drawing of a difference: removed nodes stay visible, dashed and crossed out."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from graphc.ir.difference import Difference, Pair
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Source
from graphc.ir.text.difference import counts_text, pair_text
from graphc.ops.source import Input
from graphc.view.render.cards import Line, Run, muted
from graphc.view.render.difference_lines import folded_lines, pair_lines
from graphc.view.render.sheet import Arrow, Box, Look, Sheet

MOST_BOXES = 120
"""The most boxes that are all drawn, since a page holds a drawing for each pass."""
MOST_KINDS = 300
"""The most kinds of change; above it, changes that differ only in shapes are folded too."""
_LEGEND: Mapping[Look, Run] = {
    "removed": Run("- removed (dashed)", "removed", bold=True),
    "added": Run("+ added (thick)", "added", bold=True),
    "changed": Run("~ changed (double)", "changed", bold=True),
    "renamed": Run("= renamed", "renamed", bold=True),
}


class Edge(NamedTuple):
    """One node's read of another: before, after, or in both graphs."""

    source: str
    target: str
    look: Look


def difference_sheet(
    name: str, shown: Difference, words: Sequence[str] = (), *, most: int = MOST_BOXES
) -> Sheet:
    """Return the drawing; `words` are lines for its heading, such as what was saved.

    If there are more than `most` boxes, draw only what changed and its neighbours; if these are
    still more, fold equal changes to one box.
    """
    drawing = _Drawing(shown, most)
    lines = [counts_text(shown), *words, *drawing.left_out]
    boxes, arrows = drawing.boxes_and_arrows()
    legend = _legend([*(box.look for box in boxes), *(arrow.look for arrow in arrows)])
    caption = (*((muted(text),) for text in lines), *legend)
    simpler = partial(difference_sheet, name, shown, words, most=0)
    return Sheet(name, caption, boxes, arrows, None if drawing.folded else simpler)


def _legend(looks: Iterable[Look]) -> Iterator[Line]:
    found = set(looks)
    runs = [run for kind, run in _LEGEND.items() if kind in found]
    if runs:
        yield tuple(part for run in runs for part in (run, Run("   ")))[:-1]


class _Drawing:
    """The drawing of one difference; a node has its name after, or else its name before."""

    def __init__(self, shown: Difference, most: int) -> None:
        self.pairs = {pair.node.name: pair for pair in shown.pairs}
        self.drawn = {name: pair for name, pair in self.pairs.items() if _is_box(pair)}
        partly = len(self.drawn) > most
        self.left_out: list[str] = []
        changed = {pair.node.name: pair for pair in shown.changes}
        self.edges = tuple(_edges(shown, changed if partly else None))
        if partly:
            self._keep(changed)
        self.sources = self._sources()
        self.drawn.update({name: self.pairs[name] for name in self._alone(changed)})
        self.folded = len(self.drawn) > most
        self.backward = backward_names(shown.before, shown.after)

    def _sources(self) -> Mapping[str, Sequence[Edge]]:
        """Return the edges to each box from nodes that are lines in it."""
        found: dict[str, list[Edge]] = {}
        for edge in self.edges:
            if edge.source not in self.drawn and edge.target in self.drawn:
                found.setdefault(edge.target, []).append(edge)
        return found

    def _alone(self, changed: Iterable[str]) -> list[str]:
        """Return the parameters, states and constants that differ and that no box mentions."""
        told = {
            edge.source
            for target, edges in self.sources.items()
            for edge in edges
            if self.pairs[target].kind != "equal"
        }
        return [name for name in changed if name not in self.drawn and name not in told]

    def _keep(self, changed: Mapping[str, Pair]) -> None:
        """Draw only what changed and its neighbours."""
        near = {name for edge in self.edges for name in (edge.source, edge.target)}
        near.update(changed)
        boxes = len(self.drawn)
        self.drawn = {name: pair for name, pair in self.drawn.items() if name in near}
        if len(self.drawn) < boxes:
            hidden = boxes - len(self.drawn)
            self.left_out.append(f"not drawn: {hidden:,} nodes that neither changed nor touch it")

    def boxes_and_arrows(self) -> tuple[tuple[Box, ...], tuple[Arrow, ...]]:
        """Return the boxes in graph order, and one arrow for each two that are connected."""
        groups = self._groups()
        ids = {name: f"n{i}" for i, group in enumerate(groups) for name in group}
        boxes = tuple(self._box(f"n{i}", group) for i, group in enumerate(groups))
        return boxes, tuple(self._arrows(ids))

    def _groups(self) -> Sequence[Sequence[str]]:
        if not self.folded:
            return [[name] for name in self.drawn]
        for typed in (True, False):
            groups: dict[object, list[str]] = {}
            for name, pair in self.drawn.items():
                groups.setdefault((*_signature(pair, typed), name in self.backward), []).append(
                    name
                )
            if len(groups) <= MOST_KINDS:
                break
        return list(groups.values())

    def _box(self, id: str, names: Sequence[str]) -> Box:
        pairs = [self.pairs[name] for name in names]
        first = pairs[0]
        if len(pairs) > 1:
            title = f"{len(pairs):,} nodes, {first.kind}: {', '.join(names[:12])}"
            return Box(id, tuple(folded_lines(pairs)), first.kind, title)
        rows = [(self.pairs[e.source], e.look) for e in self.sources.get(names[0], ())]
        lines = tuple(pair_lines(first, rows))
        return Box(id, lines, first.kind, _title(first), first.node.name)

    def _arrows(self, ids: Mapping[str, str]) -> Iterator[Arrow]:
        found: dict[tuple[str, str], Arrow] = {}
        for source, target, look in self.edges:
            if source not in ids or target not in ids or ids[source] == ids[target]:
                continue
            ends = ids[source], ids[target]
            back = target in self.backward
            against = back and source in self.backward
            known = found.get(ends)
            if known is None or known.look == "equal":
                free = back and not against
                found[ends] = Arrow(*ends, look, against=against, free=free)
        yield from found.values()


def _is_box(pair: Pair) -> bool:
    return not isinstance(pair.node.op, Source) or isinstance(pair.node.op, Input)


def _edges(shown: Difference, touching: Container[str] | None) -> Iterator[Edge]:
    """Yield every read in either graph, or only the reads that involve nodes of `touching`."""
    new_of = {p.before.name: p.node.name for p in shown.pairs if p.before is not None}
    for pair in shown.pairs:
        name = pair.node.name
        after = list(pair.after.inputs) if pair.after else []
        if pair.kind == "equal":
            before = after
        else:
            before = [new_of[name] for name in pair.before.inputs] if pair.before else []
        for source in dict.fromkeys([*before, *after]):
            if touching is None or name in touching or source in touching:
                yield Edge(source, name, _look(source in before, source in after))


def _look(before: bool, after: bool) -> Look:
    if before and after:
        return "equal"
    return "removed" if before else "added"


def backward_names(*graphs: Graph) -> frozenset[str]:
    """Return the gradients and the nodes computed from them."""
    found: set[str] = set()
    for graph in graphs:
        forward = graph.forward()
        for node in graph:
            if node.name not in forward and _is_gradient(node, found):
                found.add(node.name)
    return frozenset(found)


def _is_gradient(node: Node, known: set[str]) -> bool:
    return node.name.startswith("d_") or not known.isdisjoint(node.inputs)


def _signature(pair: Pair, typed: bool) -> tuple[object, ...]:
    """Return a key that equal changes share."""
    nodes = (pair.before, pair.after)
    ops = tuple(node and type(node.op) for node in nodes)
    return (pair.kind, *ops, *(node and node.type for node in nodes if typed))


def _title(pair: Pair) -> str:
    return pair.node.name if pair.kind == "equal" else "\n".join(pair_text(pair))
