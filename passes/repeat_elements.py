"""Recompute elementwise functions in the backward part, if fewer values are kept that way.

    b = sigmoid(a)             b = sigmoid(a)
    h = mul(a, b)       ->     h = mul(a, b)
    ...                        ...
    d_a = ... b ...            a.late = after(a, d_h)
                               b.recomputed = sigmoid(a.late)
                               d_a = ... b.recomputed ...

A function such as gelu is several nodes, and the backward part reads most of the values between
them.  Of these only the value is kept that all are computed from: kernels compute the clones in
registers, which takes no longer than writing and reading.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphc.ir.graph import Graph, Node, boundary
from graphc.ir.op import Source
from graphc.ir.tensor_type import count
from graphc.kernels.iteration_space import is_number
from graphc.kernels.traits import iteration_of, kinds_of
from passes.contract import graph_pass
from passes.rematerialize import Rematerialize


@graph_pass(preserves="bitwise")
def repeat_elements(graph: Graph) -> Graph:
    """Return the graph with clones, or the graph as it was if nothing is gained."""
    chosen = repeated_elements(graph)
    return Rematerialize(chosen)(graph) if chosen else graph


def repeated_elements(graph: Graph) -> frozenset[str]:
    """Return the nodes to recompute, with all nodes between them and the values that are kept."""
    return frozenset(_Elements(graph).chosen())


class _Elements:
    """The values of a graph that are computed from elements at the same index."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.forward = {node.name for node in list(graph)[: boundary(graph, graph) + 1]}
        self.roots = {self._root(name) for name in graph.roots}
        plain = (n.name for n in graph if n.name in self.forward and _is_plain(graph, n))
        self.repeated = {name for name in plain if not self._is_kept(name)}
        """The values that kernels may recompute."""

    def chosen(self) -> set[str]:
        """Return all or none of each group of values with common origins, and those between."""
        late = {name for name in self.repeated if self._is_late(name)}
        needed = self._between(late)
        chosen: set[str] = set()
        for group in self._groups(needed):
            names = group & late
            origins = group - self.repeated
            kept = [name for name in origins if not self._is_kept(name) and not self._is_late(name)]
            if len(kept) < len(names):
                chosen |= group & needed
        return chosen

    def _groups(self, needed: set[str]) -> list[set[str]]:
        """Return the groups of these values that have common origins, with the origins."""
        group_of: dict[str, set[str]] = {}
        for name in needed:
            group = group_of.setdefault(name, {name})
            for operand in self._read(name):
                other = group_of.setdefault(operand, {operand})
                if other is not group:
                    less, group = sorted((group, other), key=len)
                    group |= less
                    group_of.update(dict.fromkeys(less, group))
        return list({id(group): group for group in group_of.values()}.values())

    def _read(self, name: str) -> Iterator[str]:
        """Yield the repeated values and the values in memory that a value is computed from."""
        for operand in self.graph[name].inputs:
            root = self._root(operand)
            if operand in self.repeated:
                yield operand
            elif root not in self.repeated and not is_number(self.graph[root].type):
                yield root

    def _between(self, names: set[str]) -> set[str]:
        """Return these values and all that they are computed from which are not kept."""
        seen, stack = set(names), list(names)
        while stack:
            more = self.repeated.intersection(self.graph[stack.pop()].inputs) - seen
            seen |= more
            stack += more
        return seen

    def _root(self, name: str) -> str:
        while self.graph[name].op.alias:
            name = self.graph[name].inputs[0]
        return name

    def _users(self, name: str) -> Iterator[Node]:
        for user in self.graph.users[name]:
            node = self.graph[user]
            if node.op.alias:
                yield from self._users(user)
            else:
                yield node

    def _is_late(self, name: str) -> bool:
        """Return whether the backward part reads a value."""
        return any(user.name not in self.forward for user in self._users(name))

    def _is_kept(self, name: str) -> bool:
        """Return whether a value is in memory in any case: a source, a root or read by a call."""
        if isinstance(self.graph[name].op, Source) or name in self.roots:
            return True
        types = self.graph
        return any(
            iteration_of(user, [types[operand].type for operand in user.inputs]) == "call"
            for user in self._users(name)
        )


def _is_plain(graph: Graph, node: Node) -> bool:
    """Return whether a node computes each element from those at the same index, and numbers."""
    ins = [graph[name].type for name in node.inputs]
    if isinstance(node.op, Source) or node.type.rank < 2 or not node.type.is_float:
        return False
    if (
        iteration_of(node, ins) != "elements"
        or kinds_of(node, ins) is not None
        or node.op.is_random
    ):
        return False
    size = count(node.type.shape)
    return all(is_number(type) or count(type.shape) == size for type in ins)
