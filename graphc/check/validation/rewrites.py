"""Finds the first change of a pass that shows a symptom.

A pass returns one new graph.  Its changes are the nodes that both graphs have and that differ, in
the order of the new graph, then the roots that read another node.  Graphs between the two have the
first k of them: a node that the pass added is in such a graph if another node reads it, and so is
a node that the pass removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from graphc.base.errors import GraphError
from graphc.ir.graph import Graph, Node
from graphc.ir.text.graph import name_text, node_text

KINDS = ("outputs", "gradients", "updates")


@dataclass(frozen=True)
class Rewrite:
    """One change of a pass: of a node, or of the node that a root reads."""

    name: str
    before: str
    after: str
    kind: str = "node"

    def __str__(self) -> str:
        return f"{self.before}  ->  {self.after}"


def rewrites(before: Graph, made: Graph) -> list[Rewrite]:
    """Return the changes of a pass in order."""
    found = [
        Rewrite(node.name, node_text(before[node.name]), node_text(node))
        for node in made
        if node.name in before and not _same(before[node.name], node)
    ]
    for kind in KINDS:
        old, new = getattr(before, kind), getattr(made, kind)
        for key in dict.fromkeys([*old, *new]):
            if old.get(key) != new.get(key):
                found.append(Rewrite(key, _read(kind, key, old), _read(kind, key, new), kind))
    return found


def between(before: Graph, made: Graph, count: int) -> Graph:
    """Return the graph with the first `count` changes; raise GraphError if those make a cycle."""
    changes = rewrites(before, made)
    return _between(before, made, changes[:count], count == len(changes))


def first_rewrite(before: Graph, made: Graph, shows: Callable[[Graph], bool]) -> Rewrite | None:
    """Return the change with which the symptom begins, by halving; None if it cannot be found.

    `shows` holds for the graph of all changes.  If it also holds without any, the nodes that the
    pass added are at fault, not a change.
    """
    changes = rewrites(before, made)
    good, bad = 0, len(changes)
    if not changes or _holds(shows, before, made, [], False):
        return None
    while bad - good > 1:
        middle = (good + bad) // 2
        if _holds(shows, before, made, changes[:middle], False):
            bad = middle
        else:
            good = middle
    return changes[bad - 1]


def _holds(
    shows: Callable[[Graph], bool], before: Graph, made: Graph, some: list[Rewrite], every: bool
) -> bool:
    try:
        return shows(_between(before, made, some, every))
    except GraphError:  # these changes need later ones
        return False


def _between(before: Graph, made: Graph, changes: Iterable[Rewrite], every: bool) -> Graph:
    if every:
        return made
    nodes = {**made.nodes, **before.nodes}
    roots = {kind: dict(getattr(before, kind)) for kind in KINDS}
    for change in changes:
        if change.kind == "node":
            nodes[change.name] = made[change.name]
        elif change.name in getattr(made, change.kind):
            roots[change.kind][change.name] = getattr(made, change.kind)[change.name]
        else:
            del roots[change.kind][change.name]
    needed = [name for kind in KINDS for name in (*roots[kind].values(), *roots[kind])]
    order = _sorted(nodes, [*before.nodes, *(name for name in needed if name in nodes)])
    return Graph(before.name, order, losses=before.losses, **roots)


def _sorted(nodes: Mapping[str, Node], names: Iterable[str]) -> list[Node]:
    """Return the named nodes and their operands, operands first; raise GraphError for a cycle."""
    found: dict[str, Node] = {}
    for name in names:
        stack, open_ = [name], set[str]()
        while stack:
            last = stack[-1]
            missing = [i for i in nodes[last].inputs if i not in found] if last not in found else []
            if not missing:
                found.setdefault(last, nodes[last])
                open_.discard(stack.pop())
            elif last in open_:
                raise GraphError(f"{last!r} depends on itself")
            else:
                open_.add(last)
                stack.extend(missing)
    return list(found.values())


def _same(a: Node, b: Node) -> bool:
    return a is b or ((a.inputs, a.type, a.op) == (b.inputs, b.type, b.op))


def _read(kind: str, key: str, roots: Mapping[str, str]) -> str:
    what = f"{kind.removesuffix('s')} {name_text(key)}"
    return f"{what} = {name_text(roots[key])}" if key in roots else f"no {what}"
