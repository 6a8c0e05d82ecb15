"""A difference as a drawing and as a file: removed nodes stay visible, dashed and crossed out."""

from __future__ import annotations

import html
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from graphc.ir.difference import (
    Difference,
    Kind,
    Pair,
    change_lines,
    counts_text,
    pair_text,
    step_difference,
    step_lines,
    steps_of,
)
from graphc.ir.graph import Graph, Node
from graphc.ir.op import attributes
from graphc.ir.step_graph import StepGraph
from graphc.ir.text.graph import word_of
from graphc.view.render.page import Step, View, page_text
from graphc.view.render.page.facts import Facts, facts_json, layer_table
from graphc.view.render.renderer import dot_section, missing_note, svg_of, write_drawing
from graphc.view.render.scene import Arrow, Box, Look, Scene
from graphc.view.render.style import Line, Run, muted, printable, short, struck

Item = TypeVar("Item")

MOST_BOXES = 120
"""The most boxes that are all drawn, since a page holds a drawing for each pass."""
MOST_KINDS = 300
"""The most kinds of change; above it, changes that differ only in shapes are folded too."""
MOST_LINES = 200
"""The most lines of a step's text."""
WIDTH = 32
MOST = 6
"""The most operands that a box lists."""
_MARKS: dict[Kind, str] = {"removed": "- ", "added": "+ ", "changed": "~ ", "renamed": "= "}
_LEGEND: Mapping[str, Run] = {
    "removed": Run("- removed (dashed)", "removed", bold=True),
    "added": Run("+ added (thick)", "added", bold=True),
    "changed": Run("~ changed (double)", "changed", bold=True),
    "renamed": Run("= renamed", "renamed", bold=True),
}


class Edge(NamedTuple):
    """A read of one node by another, in the graph before, after, or in both."""

    source: str
    target: str
    look: Look


def difference_scene(
    name: str, shown: Difference, words: Sequence[str] = (), *, most: int = MOST_BOXES
) -> Scene:
    """Return the drawing; `words` are lines for its heading, such as what was saved.

    If there are more than `most` boxes, draw only what changed and its neighbours; if these are
    still more, fold equal changes to one box.
    """
    drawing = _Drawing(shown, most)
    lines = [counts_text(shown), *words, *drawing.left_out]
    boxes, arrows = drawing.boxes_and_arrows()
    legend = _legend([*(box.look for box in boxes), *(arrow.look for arrow in arrows)])
    caption = (*((muted(text),) for text in lines), *legend)
    simpler = partial(difference_scene, name, shown, words, most=0)
    return Scene(name, caption, boxes, arrows, simpler=None if drawing.folded else simpler)


def _legend(looks: Iterable[str]) -> Iterator[Line]:
    found = set(looks)
    runs = [run for kind, run in _LEGEND.items() if kind in found]
    if runs:
        yield tuple(part for run in runs for part in (run, Run("   ")))[:-1]


class _Drawing:
    """The drawing of one difference; a node has its name after, or else its name before."""

    def __init__(self, shown: Difference, most: int) -> None:
        self.pairs = {pair.node.name: pair for pair in shown.pairs}
        boxes = (p for p in shown.pairs if p.node.op.is_input or not p.node.op.is_source)
        self.drawn = {pair.node.name: pair for pair in boxes}
        partly = len(self.drawn) > most
        self.left_out: list[str] = []
        changed = {pair.node.name: pair for pair in shown.changes}
        self.edges = tuple(_edges(shown, changed if partly else None))
        if partly:
            self._keep(changed)
        self.sources = self._sources()
        self.drawn.update({name: self.pairs[name] for name in self._unmentioned(changed)})
        self.folded = len(self.drawn) > most
        self.backward = backward_names(shown.before, shown.after)

    def _sources(self) -> Mapping[str, Sequence[Edge]]:
        """Return the edges to each box from nodes that are lines in it."""
        found: dict[str, list[Edge]] = {}
        for edge in self.edges:
            if edge.source not in self.drawn and edge.target in self.drawn:
                found.setdefault(edge.target, []).append(edge)
        return found

    def _unmentioned(self, changed: Iterable[str]) -> list[str]:
        """Return the parameters, states and constants that differ and that no box mentions."""
        mentioned = {
            edge.source
            for target, edges in self.sources.items()
            for edge in edges
            if self.pairs[target].kind != "equal"
        }
        return [name for name in changed if name not in self.drawn and name not in mentioned]

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
        return grouped(self.drawn, self._signature)

    def _signature(self, name: str, typed: bool) -> tuple[object, ...]:
        """Return a key that equal changes share, with or without their types."""
        pair = self.drawn[name]
        nodes = (pair.before, pair.after)
        ops = tuple(node and type(node.op) for node in nodes)
        types = tuple(node and node.type for node in nodes if typed)
        return (pair.kind, ops, types, name in self.backward)

    def _box(self, id: str, names: Sequence[str]) -> Box:
        pairs = [self.pairs[name] for name in names]
        first = pairs[0]
        if len(pairs) > 1:
            title = f"{len(pairs):,} nodes, {first.kind}: {', '.join(names[:12])}"
            return Box(id, tuple(folded_lines(pairs)), first.kind, printable(title))
        rows = [(self.pairs[e.source], e.look) for e in self.sources.get(names[0], ())]
        lines = tuple(pair_lines(first, rows))
        return Box(id, lines, first.kind, printable(_title(first)), first.node.name)

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
                both = source in before and source in after
                look: Look = "equal" if both else "removed" if source in before else "added"
                yield Edge(source, name, look)


def backward_names(*graphs: Graph) -> frozenset[str]:
    """Return the gradients and the nodes computed from them."""
    found: set[str] = set()
    for graph in graphs:
        forward = graph.forward()
        for node in graph:
            gradient = node.name.startswith("d_") or not found.isdisjoint(node.inputs)
            if gradient and node.name not in forward:
                found.add(node.name)
    return frozenset(found)


def grouped(items: Iterable[Item], signature: Callable[[Item, bool], object]) -> list[list[Item]]:
    """Group items by equal signatures: with sizes or, if these are too many kinds, without."""
    groups: dict[object, list[Item]] = {}
    for sized in (True, False):
        groups = {}
        for item in items:
            groups.setdefault(signature(item, sized), []).append(item)
        if len(groups) <= MOST_KINDS:
            break
    return list(groups.values())


def _title(pair: Pair) -> str:
    if pair.kind == "equal":
        return pair.node.name
    return "\n".join([*pair_text(pair), *islice(step_lines(*steps_of(pair)), MOST_LINES)])


def pair_lines(pair: Pair, sources: Sequence[tuple[Pair, Look]]) -> Iterator[Line]:
    """Yield op and name, type, changed attributes, and the parameters and other sources read."""
    before, after = pair.before or pair.node, pair.after or pair.node
    yield _head(pair, *_names(pair, before, after))
    yield _type(pair, before, after)
    if pair.kind == "changed":
        yield from _attributes(before, after)
    if pair.kind != "equal":
        yield from _sources(pair, sources)


def folded_lines(pairs: Sequence[Pair]) -> Iterator[Line]:
    """Yield the same for several nodes: their number, and the first and the last of them."""
    first, last = pairs[0], pairs[-1]
    yield _head(first, Run(f" x {len(pairs):,}", bold=True))
    before, after = first.before or first.node, first.after or first.node
    if len({pair.node.type for pair in pairs}) == 1:
        yield _type(first, before, after)
    else:
        yield (muted("of several types"),)
    yield (muted(f"{short(first.node.name, 20)} ... {short(last.node.name, 20)}"),)


def _head(pair: Pair, *name: Run) -> Line:
    before, after = pair.before or pair.node, pair.after or pair.node
    old, new = word_of(type(before.op)), word_of(type(after.op))
    bold = pair.kind != "equal"
    mark = [Run(_MARKS[pair.kind], pair.kind, bold=True)] if bold else []
    if pair.kind == "removed":
        return (*mark, struck(old, WIDTH), *name)
    word = Run(short(new, WIDTH), "ink" if bold else "muted", bold)
    if old != new:
        return (*mark, struck(old, WIDTH), Run(" "), word, *name)
    return (*mark, word, *name)


def _names(pair: Pair, before: Node, after: Node) -> list[Run]:
    if before.name != after.name:
        return [Run(" "), struck(before.name, WIDTH), muted(f" {short(after.name, WIDTH)}")]
    return [muted(f" {short(pair.node.name, WIDTH)}")]


def _type(pair: Pair, before: Node, after: Node) -> Line:
    if before.type != after.type:
        return struck(str(before.type), WIDTH), Run(f" {after.type}")
    return (muted(str(pair.node.type)),)


def _attributes(before: Node, after: Node) -> Iterator[Line]:
    if type(before.op) is not type(after.op):
        return
    old, new = attributes(before.op), attributes(after.op)
    for key in new:
        if isinstance(old[key], StepGraph) and isinstance(new[key], StepGraph):
            if old[key] != new[key]:
                yield muted(f"{key} "), Run(counts_text(step_difference(old[key], new[key])))
        elif old[key] != new[key] and key not in ("shape", "dtype", "data"):
            yield muted(f"{key} "), struck(repr(old[key]), 16), Run(f" {short(repr(new[key]), 16)}")


def _sources(pair: Pair, sources: Sequence[tuple[Pair, Look]]) -> Iterator[Line]:
    """Yield operands without boxes: of an added or removed node all, else the changed ones."""
    whole = pair.kind in ("removed", "added")
    some = [s for s in sources if whole or s[1] != "equal" or s[0].kind != "equal"]
    for source, look in some[:MOST]:
        name = short(source.node.name, WIDTH)
        if whole or look == "equal":
            yield (muted(f"  {name}"),)
        elif look == "removed":
            yield Run("  - ", "removed"), struck(name, WIDTH)
        else:
            yield Run("  + ", "added"), Run(name)
    if len(some) > MOST:
        yield (muted(f"  {len(some) - MOST} more"),)


def pass_scene(title: str, made: Difference, words: Sequence[str]) -> Scene:
    """Return the drawing of what a pass changed; one line if that is nothing."""
    if made:
        return difference_scene(title, made, words)
    return Scene(title, ((muted(f"changed none of {len(made.after):,} nodes"),),), (), ())


def pass_text(made: Difference, words: Sequence[str]) -> str:
    """Return in words what the pass changed and saved, cut to the first lines if there are many."""
    if not made:
        return f"changed none of {len(made.after):,} nodes"
    lines = list(islice(change_lines(made), MOST_LINES))
    more = ["and more"] if len(lines) == MOST_LINES else []
    return "\n".join([counts_text(made), *words, *lines, *more])


def render_difference(
    made: Difference,
    path: str | Path,
    *,
    name: str,
    words: Sequence[str] = (),
    declared: Graph | None = None,
) -> Path:
    """Draw a difference in the format that the suffix names; return the path.

    `words` are lines for its heading.  A page also has the table of the layers of `declared`, or
    else of the graph after.  Raise the errors that `render_graph` raises.
    """
    scene, text = pass_scene(name, made, words), pass_text(made, words)
    page = partial(_page, scene, made, text, declared or made.after)
    return write_drawing(lambda: scene, path, page)


def _page(scene: Scene, made: Difference, text: str, declared: Graph) -> str:
    data = facts_json(Facts((made.after, made.before)), [scene.picture])
    table = layer_table(declared, scene.picture)
    note = missing_note()
    if note:
        words = f"\n<h2>Difference</h2>\n<pre>{html.escape(text)}</pre>"
        return page_text(scene.name, (), f"{table}{words}{dot_section(scene)}", data, note)
    view = View("difference", "Difference", (Step(scene.name, svg_of(lambda: scene), text),))
    return page_text(scene.name, (view,), table, data)
