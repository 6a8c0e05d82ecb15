"""Reverse-mode differentiation: cotangents are new nodes of the graph that they differentiate.

`vjp` serves the Backward pass and derivatives inside a net, `pullback` the gradient rules that
differentiate a composition of ops.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from graphc.base.work import spend_nodes
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Node
from graphc.ops.elementwise import Add
from graphc.ops.slicing import Concat, joined_axis, slice_start

WALKED = 16
"""The number of nodes that are visited in the time in which one is made."""


def vjp(
    b: Builder, cotangents: Mapping[str, Value], wrt: Iterable[str], prefix: str = "d_"
) -> dict[str, Value]:
    """Return the cotangent of each `wrt` node, by name, from those of nodes that depend on it.

    Nodes without a gradient are left out.  New nodes are named `<prefix><node>` and take
    the lines of the node that they differentiate.
    """
    return _Reverse(b, cotangents, frozenset(wrt), prefix).run()


def pullback(of: Value, dout: Value, ins: Sequence[Value]) -> list[Value | None]:
    """Return the cotangents of `ins` through the nodes that compute `of` from them.

    Each of `ins` counts as an independent variable, even if one depends on another.
    """
    b, leaves = of.builder, frozenset(v.name for v in ins)
    found = _Reverse(b, {of.name: dout}, leaves, f"{b.prefix}pull_", leaves).run()
    return [found.pop(v.name, None) for v in ins]  # a value listed twice gets it once


class _Reverse:
    """One traversal of the nodes in reverse order, which ends at `leaves`."""

    def __init__(
        self,
        b: Builder,
        cotangents: Mapping[str, Value],
        wrt: frozenset[str],
        prefix: str,
        leaves: frozenset[str] = frozenset(),
    ) -> None:
        self.b, self.wrt, self.prefix, self.leaves = b, wrt, prefix, leaves
        nodes = _upstream(b.nodes, cotangents, leaves)
        self.active = _depend_on(nodes, wrt)
        self.order = [node for node in nodes if node.name in self.active]
        self.expected = self._count_contributions(cotangents)
        self.parts: dict[str, list[Value]] = {name: [v] for name, v in cotangents.items()}

    def _count_contributions(self, cotangents: Mapping[str, Value]) -> dict[str, int]:
        counts = dict.fromkeys(cotangents, 1)
        for node in reversed(self.order):
            if node.name in counts and node.name not in self.leaves:
                for operand in node.inputs:
                    if operand in self.active:
                        counts[operand] = counts.get(operand, 0) + 1
        return counts

    def run(self) -> dict[str, Value]:
        found: dict[str, Value] = {}
        saved = self.b.prefix, self.b.locs
        try:
            for node in reversed(self.order):
                parts = self.parts.pop(node.name, None)
                if parts:
                    self.b.locs = node.locs
                    total = self._sum(node, parts)
                    if node.name in self.wrt:
                        found[node.name] = total
                    self._differentiate(node, total)
        finally:
            self.b.prefix, self.b.locs = saved
        return found

    def _sum(self, node: Node, parts: list[Value]) -> Value:
        parts = self._side_by_side(parts)
        total = parts[0]
        for i, part in enumerate(parts[1:], 2):
            last = i == len(parts)
            base = f"{self.prefix}{node.name}" + ("" if last else f".sum{i}")
            self.b.prefix = ""
            total = self.b.apply(Add(), total, part, name=self.b.unique(base))
        return total

    def _side_by_side(self, parts: list[Value]) -> list[Value]:
        """Concatenate the gradients of slices that tile a value: no padding, no sums."""
        axis = joined_axis([part.node for part in parts]) if len(parts) > 1 else None
        if axis is None:
            return parts
        self.b.prefix = ""
        ordered = sorted(parts, key=lambda part: slice_start(part.node.op))
        found = [Value(self.b, part.node.inputs[0]) for part in ordered]
        return [self.b.apply(Concat(axis), *found, name=self.b.unique(f"{parts[0].name}.joined"))]

    def _differentiate(self, node: Node, dout: Value) -> None:
        if node.name in self.leaves or self.active.isdisjoint(node.inputs):
            return
        b = self.b
        before = len(b.nodes)
        b.prefix = f"{self.prefix}{node.name}."
        ins = [Value(b, operand) for operand in node.inputs]
        try:
            contributions = node.op.grad(b, ins, Value(b, node.name), dout)
        except NotImplementedError:
            raise b.error(
                node.op,
                "it has no gradient rule\n"
                "give the op a grad rule, or stop before it: gc.stop_gradient(x)",
                ins,
                node.name,
                node.locs,
            ) from None
        self._collect(node, contributions, before)

    def _collect(self, node: Node, contributions: Sequence[Value | None], before: int) -> None:
        new = self._pop_new(before)  # inserted below, if needed, as gradients of the operands
        names: dict[str, str] = {}
        pairs = [
            (operand, part.name)
            for operand, part in zip(node.inputs, contributions, strict=True)
            if part is not None and operand in self.active
        ]
        given: dict[str, int] = {}
        for operand, part in pairs:
            given[operand] = given.get(operand, 0) + 1
            if part in new and part not in names:
                names[part] = self._gradient_name(operand, given[operand])
        needed = _needed(new, [part for _, part in pairs])
        for name, made in new.items():
            if name in needed:
                inputs = tuple(names.get(i, i) for i in made.inputs)
                self.b.insert(Node(names.get(name, name), made.op, inputs, made.type, made.locs))
        for operand, part in pairs:
            self.parts.setdefault(operand, []).append(Value(self.b, names.get(part, part)))

    def _pop_new(self, before: int) -> dict[str, Node]:
        nodes = self.b.nodes
        new: dict[str, Node] = {}
        while len(nodes) > before:
            name, made = nodes.popitem()
            new[name] = made
        return dict(reversed(new.items()))

    def _gradient_name(self, operand: str, nth: int) -> str:
        base = f"{self.prefix}{operand}"
        if self.expected.get(operand, 1) > 1:
            base = f"{base}.{len(self.parts.get(operand, ())) + nth}"
        return self.b.unique(base)


def _upstream(
    nodes: Mapping[str, Node], names: Iterable[str], leaves: frozenset[str]
) -> list[Node]:
    """Return the named nodes and all that they depend on, up to the leaves, in graph order."""
    seen: set[str] = set()
    stack = list(names)
    while stack:
        name = stack.pop()
        if name not in seen:
            seen.add(name)
            if name not in leaves:
                stack.extend(nodes[name].inputs)
    spend_nodes(len(seen) // WALKED)
    found: list[Node] = []
    for node in reversed(nodes.values()):  # type: ignore[call-overload]
        if node.name in seen:
            found.append(node)
            if len(found) == len(seen):
                break
    return found[::-1]


def _depend_on(nodes: Iterable[Node], wrt: frozenset[str]) -> set[str]:
    """Return the float nodes that depend on one of `wrt`, which are included."""
    active: set[str] = set()
    for node in nodes:
        reached = node.name in wrt or any(operand in active for operand in node.inputs)
        if reached and node.type.is_float:
            active.add(node.name)
    return active


def _needed(new: Mapping[str, Node], names: Iterable[str]) -> set[str]:
    """Return the new nodes that the contributions are computed from."""
    seen: set[str] = set()
    stack = [name for name in names if name in new]
    while stack:
        name = stack.pop()
        if name not in seen:
            seen.add(name)
            stack.extend(operand for operand in new[name].inputs if operand in new)
    return seen
