"""The difference of two graphs: nodes removed, added, changed, or only renamed.

Nodes of the same name match.  Two others match if they are the same op of the same operands: then
the node was renamed.  If only the op's attributes differ, as those of dropout do with its name, it
was renamed and changed.

As text a line starts with - for a removed item, + for an added one, ~ for a changed one, with the
new form below it, and = for one that only has another name:

    fuse_affine_relu: 1 removed, 1 changed
    - affine_1: float32[N, 3] = affine(x, w, b)
    ~ relu_1: float32[N, 3] = relu(affine_1)
      relu_1: float32[N, 3] = affine_relu(x, w, b)

Below a loop whose step differs are the differences in the step, further to the right.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from graphc.ir.graph import Graph, Node
from graphc.ir.op import step_of
from graphc.ir.step_graph import StepGraph
from graphc.ir.text.graph import head_text, name_text, node_text

Kind = Literal["equal", "removed", "added", "changed", "renamed"]
KINDS: tuple[Kind, ...] = ("removed", "added", "changed", "renamed")
"""The differences, in the order in which they are counted."""
RootKind = Literal["output", "gradient", "update"]
_ROOTS: tuple[RootKind, ...] = ("output", "gradient", "update")
Key = tuple[object, ...]
Steps = tuple[StepGraph | None, StepGraph | None]


@dataclass(frozen=True, slots=True)
class Pair:
    """A node before and after; None on the side that does not have it."""

    kind: Kind
    before: Node | None
    after: Node | None

    @property
    def node(self) -> Node:
        """The node after, or else before."""
        node = self.after or self.before
        assert node is not None
        return node


@dataclass(frozen=True, slots=True)
class RootChange:
    """A public name that maps to another node now; None on a side without that name."""

    what: RootKind | Literal["losses"]
    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Difference:
    """Two graphs, and every node of either in an order that follows both."""

    before: Graph
    after: Graph
    pairs: tuple[Pair, ...]
    roots: tuple[RootChange, ...]

    @cached_property
    def changes(self) -> tuple[Pair, ...]:
        """The pairs that are not equal."""
        return tuple(pair for pair in self.pairs if pair.kind != "equal")

    def count(self, kind: Kind) -> int:
        """Return how many nodes differ in this way, or are equal."""
        if kind == "equal":
            return len(self.pairs) - len(self.changes)
        return sum(pair.kind == kind for pair in self.changes)

    def __bool__(self) -> bool:
        return bool(self.changes or self.roots)

    def __str__(self) -> str:
        return difference_text(self)


def difference(before: Graph, after: Graph) -> Difference:
    """Return how `after` differs from `before`, by name and structure."""
    if before is after:
        return Difference(before, after, tuple(Pair("equal", n, n) for n in after), ())
    known = matched(before, after)
    pairs = tuple(_pairs(before, after, known))
    return Difference(before, after, pairs, tuple(_roots(before, after, known)))


def matched(before: Graph, after: Graph) -> Mapping[str, str]:
    """Return, for the nodes of `after`, the name that each had in `before`."""
    return _Matching(before, after).known


class _Matching:
    """The matching of the nodes of `after` with those of `before`; each matches at most one."""

    def __init__(self, before: Graph, after: Graph) -> None:
        self.before, self.after = before, after
        self.known = {name: name for name in after.nodes if name in before}
        self.taken = set(self.known.values())
        gone = [n for n in before if n.name not in self.taken and not n.op.is_source]
        self.same = self._index(gone, _whole)
        self.alike = self._index(gone, _kind)
        for node in after:  # operands precede their users
            if before.nodes.get(node.name) is node:
                continue
            old = self.known.get(node.name) or self._found(node)
            if old is not None and not node.op.is_source:
                self._pair(node, old)

    def _index(self, gone: list[Node], what: Callable[[Node], Key]) -> dict[Key, deque[Node]]:
        found: dict[Key, deque[Node]] = {}
        for node in gone:
            operands = (self._operand(self.before[i], node.inputs) for i in node.inputs)
            found.setdefault((*what(node), *operands), deque()).append(node)
        return found

    def _operand(self, source: Node, among: tuple[str, ...]) -> object:
        """Return an operand's name, or the definition of a source that has no namesake."""
        if source.op.is_source and source.name not in self.known:
            return (*_whole(source), among.index(source.name))
        return source.name

    def _found(self, node: Node) -> str | None:
        if node.op.is_source:
            return None
        operands: list[object] = []
        for name in node.inputs:
            operand = self.after[name]
            loose = operand.op.is_source and name not in self.before
            if not loose and name not in self.known:
                return None
            operands.append(
                (*_whole(operand), node.inputs.index(name)) if loose else self.known[name]
            )
        for index, what in ((self.same, _whole), (self.alike, _kind)):
            for candidate in index.get((*what(node), *operands), ()):
                if candidate.name not in self.taken and self._fits(node, candidate):
                    return candidate.name
        return None

    def _fits(self, node: Node, old: Node) -> bool:
        """Return whether the operands of both nodes match, or are not yet matched with others."""
        for new_name, old_name in zip(node.inputs, old.inputs, strict=True):
            free = new_name not in self.known and old_name not in self.taken
            if self.known.get(new_name) != old_name and not free:
                return False
        return True

    def _pair(self, node: Node, old: str) -> None:
        """Match two nodes, and their source operands that differ in name only."""
        self.known[node.name] = old
        self.taken.add(old)
        was = self.before[old]
        if _kind(node) != _kind(was):
            return
        for new_name, old_name in zip(node.inputs, was.inputs, strict=False):
            free = new_name not in self.known and old_name not in self.taken
            if free and _is_source(self.after[new_name], self.before[old_name]):
                self.known[new_name] = old_name
                self.taken.add(old_name)


def _whole(node: Node) -> Key:
    return node.op, node.type


def _kind(node: Node) -> Key:
    return type(node.op), node.type, len(node.inputs)


def _is_source(new: Node, old: Node) -> bool:
    return new.op.is_source and _whole(new) == _whole(old)


def _pairs(before: Graph, after: Graph, known: Mapping[str, str]) -> Iterator[Pair]:
    """Yield all nodes in the order of `after`; removed ones at their old place."""
    kept = set(known.values())
    old_nodes = list(before)
    places = {node.name: place for place, node in enumerate(old_nodes)}
    done = 0
    for node in after:
        old = known.get(node.name)
        if old is None:
            while done < len(old_nodes) and old_nodes[done].name not in kept:
                yield Pair("removed", old_nodes[done], None)
                done += 1
            yield Pair("added", None, node)
            continue
        for gone in old_nodes[done : places[old]]:
            if gone.name not in kept:
                yield Pair("removed", gone, None)
        done = max(done, places[old] + 1)
        yield Pair(_kind_of(before[old], node, known), before[old], node)
    for gone in old_nodes[done:]:
        if gone.name not in kept:
            yield Pair("removed", gone, None)


def _kind_of(old: Node, new: Node, known: Mapping[str, str]) -> Kind:
    if old is new:  # and so are its operands, which both graphs have by the same names
        return "equal"
    reads = tuple([known.get(name) for name in new.inputs])
    if reads != old.inputs or _whole(old) != _whole(new):
        return "changed"
    return "equal" if old.name == new.name else "renamed"


def _roots(before: Graph, after: Graph, known: Mapping[str, str]) -> Iterator[RootChange]:
    for what in _ROOTS:
        old, new = _named(before, what), _named(after, what)
        for name in dict.fromkeys([*old, *new]):
            was, now = old.get(name), new.get(name)
            if was is None or now is None or known.get(now) != was:
                yield RootChange(what, name, was, now)
    if before.losses != after.losses:
        yield RootChange("losses", "", ", ".join(before.losses), ", ".join(after.losses))


def _named(graph: Graph, what: RootKind) -> Mapping[str, str]:
    roots: Mapping[str, str] = getattr(graph, f"{what}s")
    return roots


LONGEST = 240
"""A line is cut after this many characters: constants may hold many numbers."""


def difference_text(difference: Difference) -> str:
    """Return a line of counts and one or two a change; equal differences give equal text."""
    return "\n".join([counts_text(difference), *change_lines(difference)]) + "\n"


def counts_text(difference: Difference) -> str:
    """Return `1 removed, 2 added`, or `no difference`."""
    counts = ((difference.count(kind), kind) for kind in KINDS)
    words = [f"{count:,} {kind}" for count, kind in counts if count]
    if difference.roots and not words:
        return "the same nodes, other roots"
    return ", ".join(words) or "no difference"


def change_lines(difference: Difference) -> Iterator[str]:
    """Yield the lines of the changes alone, nodes first."""
    shown = _shown_steps(difference)
    for pair in difference.changes:
        yield from pair_text(pair)
        yield from step_lines(*shown.pop(pair.node.name, (None, None)))
    for root in difference.roots:
        yield from _root_lines(root)


def _shown_steps(difference: Difference) -> dict[str, Steps]:
    """Return the steps to show below the changes, by name: those of a loop only once."""
    found: dict[str, Steps] = {}
    seen: set[Steps] = set()
    for pair in sorted(difference.changes, key=lambda pair: None in (pair.before, pair.after)):
        before, after = steps_of(pair)
        if {(before, after), (before, None), (None, after)}.isdisjoint(seen - {(None, None)}):
            found[pair.node.name] = before, after
        seen.update({(before, after), (before, None), (None, after)})
    return found


def pair_text(pair: Pair) -> Iterator[str]:
    """Yield the lines of a changed node as in `graph_text`, with a mark."""
    before, after = pair.before, pair.after
    if before is None or after is None:
        yield f"{'-' if after is None else '+'} {_line(pair.node)}"
    elif pair.kind == "renamed":
        yield f"= {name_text(before.name)} -> {name_text(after.name)}"
    else:
        old, new = _line(before), _line(after)
        yield f"~ {old}"
        if new != old:
            yield f"  {new}"


def steps_of(pair: Pair) -> Steps:
    """Return the steps of a loop before and after, None on a side without one."""
    before = None if pair.before is None else step_of(pair.before.op)
    return before, None if pair.after is None else step_of(pair.after.op)


def step_difference(before: StepGraph | None, after: StepGraph | None) -> Difference:
    """Return the difference of the nodes of two steps."""
    old, new = (Graph("step", () if step is None else step.nodes) for step in (before, after))
    return difference(old, new)


def step_lines(before: StepGraph | None, after: StepGraph | None) -> Iterator[str]:
    """Yield what differs between two steps, indented; nothing if they are equal."""
    if before == after:
        return
    made = step_difference(before, after)
    yield f"    in the step: {counts_text(made)}"
    old, new = ("" if step is None else head_text(step) for step in (before, after))
    if old != new:
        yield from (f"    {sign} {head}" for sign, head in (("-", old), ("+", new)) if head)
    yield from (f"    {line}" for line in change_lines(made))


def _line(node: Node) -> str:
    text = node_text(node)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


def _root_lines(root: RootChange) -> Iterator[str]:
    name = f"{root.what} {name_text(root.name)}" if root.name else root.what
    sign = " = " if root.name else " "
    if root.before:
        yield f"- {name}{sign}{_value(root, root.before)}"
    if root.after:
        yield f"+ {name}{sign}{_value(root, root.after)}"


def _value(root: RootChange, value: str) -> str:
    return name_text(value) if root.name else ", ".join(map(name_text, value.split(", ")))
