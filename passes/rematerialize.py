"""Recompute values in the backward part, rather than keep them from the forward pass.

    h1 = affine_relu(x, w1, b1)            h1 = affine_relu(x, w1, b1)
    h2 = affine_relu(h1, w2, b2)           h2 = affine_relu(h1, w2, b2)
    loss = ...(h2)                         loss = ...(h2)
    d_s = ...                       ->     d_s = ...
    d_w3 = matmul(h2, d_s)                 h1.late = after(h1, d_s)
                                           h2.recomputed = affine_relu(h1.late, w2, b2)
                                           d_w3 = matmul(h2.recomputed, d_s)

A value's clone, `<name>.recomputed`, is placed before the first node of the backward part that
reads the value, and all such nodes read the clone.  It reads clones itself if its operands are also
recomputed.  Every clone has a control dependency, `after`, on a value of the backward part: so
none is merged with the node that it recomputes, and no order can move it ahead.

graphc/compiler/remat chooses the values.  A clone reads the same values as its
original: a state's is that from before the step, as everywhere in a graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from graphc.ir.graph import Graph, Node, boundary
from graphc.ir.op import Op
from graphc.ops.fused import After


@dataclass(frozen=True)
class Rematerialize:
    """The pass that recomputes these nodes where the backward part reads them."""

    name: ClassVar[str] = "rematerialize"
    of_step: ClassVar[None] = None
    preserves: ClassVar[Literal["bitwise"]] = "bitwise"
    nodes: frozenset[str]

    def __call__(self, graph: Graph) -> Graph:
        """Return the graph with clones, or as it was if the backward part reads no such node."""
        cloning = _Cloning(graph, self.nodes)
        made = list(cloning.nodes())
        return graph.with_nodes(made).pruned() if cloning.clones else graph


class _Cloning:
    """One traversal of a graph that makes a clone at its first user in the backward part."""

    def __init__(self, graph: Graph, recomputed: frozenset[str]) -> None:
        self.graph, self.recomputed = graph, recomputed
        self.positions = {node.name: i for i, node in enumerate(graph)}
        self.boundary = boundary(graph, graph)
        self.clones: dict[str, str] = {}
        self.origins: dict[str, Node] = dict(graph.nodes)
        """The original node of each node, by name; that of a clone is the node it recomputes."""

    def nodes(self) -> Iterator[Node]:
        """Yield the nodes of the new graph in order."""
        event = ""
        for node in self.graph:
            if self.positions[node.name] <= self.boundary:
                yield node
            else:
                yield from self._clones_for(node, event)
                yield node.reading(self.clones)
            if not node.op.is_source and node.name not in self.graph.updates.values():
                event = node.name

    def _clones_for(self, user: Node, before: str) -> Iterator[Node]:
        """Yield the clones that a node needs, in order, each as soon as its operands exist."""
        wanted = self._wanted(user)
        if not wanted:
            return
        event = self._event(user) or before
        late: dict[str, str] = {}
        fresh: set[str] = set()
        for name in sorted(wanted, key=self.positions.__getitem__):
            node = self.graph[name]
            inputs = [self.clones.get(operand, operand) for operand in node.inputs]
            waiting = self._waiting(inputs) if fresh.isdisjoint(inputs) else None
            if waiting is not None:
                if waiting not in late:
                    guard = self._new(self.origins[waiting], "late", After(), (waiting, event))
                    late[waiting] = guard.name
                    yield guard
                inputs[inputs.index(waiting)] = late[waiting]
            clone = self._new(node, "recomputed", node.op, inputs)
            self.clones[name] = clone.name
            fresh.add(clone.name)
            yield clone

    def _wanted(self, user: Node) -> set[str]:
        wanted: set[str] = set()
        stack = list(user.inputs)
        while stack:
            name = stack.pop()
            if name in self.recomputed and name not in self.clones and name not in wanted:
                wanted.add(name)
                stack.extend(self.graph[name].inputs)
        return wanted

    def _event(self, user: Node) -> str | None:
        """Return the last value of the backward part that a node reads."""
        read = [name for name in user.inputs if self.positions[name] > self.boundary]
        computed = (name for name in read if not self.graph[name].op.is_source)
        return max(computed, key=self.positions.__getitem__, default=None)

    def _waiting(self, inputs: Sequence[str]) -> str | None:
        """Return the operand for a clone's control dependency: computed, or else not a constant.

        Never a state that changes, which could then not be written in place.
        """
        fixed = [name for name in inputs if name not in self.graph.updates]
        computed = [name for name in fixed if not self.origins[name].op.is_source]
        given = [name for name in fixed if not self.origins[name].op.is_constant]
        return next(iter((*computed, *given, *fixed)), None)

    def _new(self, node: Node, part: str, op: Op, inputs: Sequence[str]) -> Node:
        """Return a new node of the same type as another, under a name derived from its name."""
        name = f"{node.name}.{part}"
        while name in self.origins:
            name += "_"
        self.origins[name] = node
        return Node(name, op, tuple(inputs), node.type, node.locs, recomputes=node.name)
