"""Recompute elementwise functions in the backward part, if fewer values are kept that way.

    b = sigmoid(a)             b = sigmoid(a)
    h = mul(a, b)       ->     h = mul(a, b)
    ...                        ...
    d_a = ... b ...            a.late = after(a, d_h)
                               b.again = sigmoid(a.late)
                               d_a = ... b.again ...

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
from passes.pipeline import graph_pass
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
        places = {node.name: i for i, node in enumerate(graph)}
        end = boundary(graph, graph)
        self.forward = {name for name, place in places.items() if place <= end}
        self.plain = {
            node.name for node in graph if node.name in self.forward and _is_plain(graph, node)
        }
        self.roots = {self._root(name) for name in graph.roots}
        self._kept: dict[str, bool] = {}

    def chosen(self) -> Iterator[str]:
        """Yield all or none of each group of values with common origins."""
        for names, origins in self._groups():
            kept = [name for name in origins if not self._is_kept(name) and not self._is_late(name)]
            if len(kept) < len(names):
                yield from self._between(names)

    def _groups(self) -> Iterator[tuple[set[str], set[str]]]:
        """Yield groups of values that only the backward part keeps, and their origins."""
        groups: list[tuple[set[str], set[str]]] = []
        come_from = self._all_origins()
        for node in self.graph:
            if node.name not in self.plain or not self._is_late(node.name):
                continue
            if self._is_kept(node.name):
                continue
            names, origins = {node.name}, set(come_from[node.name])
            for group in [group for group in groups if group[1] & origins]:
                groups.remove(group)
                names, origins = names | group[0], origins | group[1]
            groups.append((names, origins))
        yield from groups

    def _all_origins(self) -> dict[str, frozenset[str]]:
        """Return the kept or non-plain values that each plain value is computed from."""
        found: dict[str, frozenset[str]] = {}
        for node in self.graph:
            if node.name not in self.plain:
                continue
            own = [found[operand] for operand in node.inputs if self._is_repeated(operand)]
            roots = map(self._root, node.inputs)
            given = (root for root in roots if not is_number(self.graph[root].type))
            others = (root for root in given if not self._is_repeated(root))
            found[node.name] = frozenset(others).union(*own)
        return found

    def _between(self, names: set[str]) -> set[str]:
        """Return these values and all that they are computed from which are not kept."""
        seen: set[str] = set()
        stack = list(names)
        while stack:
            name = stack.pop()
            if name not in seen:
                seen.add(name)
                operands = self.graph[name].inputs
                stack += [operand for operand in operands if self._is_repeated(operand)]
        return seen

    def _is_repeated(self, name: str) -> bool:
        return name in self.plain and not self._is_kept(name)

    def _root(self, name: str) -> str:
        while self.graph[name].op.alias:
            name = self.graph[name].inputs[0]
        return name

    def _readers(self, name: str) -> Iterator[Node]:
        for user in self.graph.users[name]:
            node = self.graph[user]
            if node.op.alias:
                yield from self._readers(user)
            else:
                yield node

    def _is_late(self, name: str) -> bool:
        """Return whether the backward part reads a value."""
        return any(reader.name not in self.forward for reader in self._readers(name))

    def _is_kept(self, name: str) -> bool:
        """Return whether a value is in memory in any case: a source, a root or read by a call."""
        known = self._kept.get(name)
        if known is None:
            known = self._kept[name] = self._must_be_kept(name)
        return known

    def _must_be_kept(self, name: str) -> bool:
        if isinstance(self.graph[name].op, Source) or name in self.roots:
            return True
        types = self.graph
        return any(
            reader.op.iteration([types[operand].type for operand in reader.inputs]) == "call"
            for reader in self._readers(name)
        )


def _is_plain(graph: Graph, node: Node) -> bool:
    """Return whether a node computes each element from those at the same index, and numbers."""
    ins = [graph[name].type for name in node.inputs]
    if isinstance(node.op, Source) or node.type.rank < 2 or not node.type.is_float:
        return False
    if (
        node.op.iteration(ins) != "elements"
        or node.op.broadcast_kinds(ins) is not None
        or node.op.is_random
    ):
        return False
    size = count(node.type.shape)
    return all(is_number(type) or count(type.shape) == size for type in ins)
