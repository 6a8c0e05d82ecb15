"""The origin of a backward node: its rule, its formula, and the operands with their shapes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

from graphc.compiler.plan import Plan
from graphc.ir.graph import Graph, Node
from graphc.ir.op import attributes, formula_of
from graphc.ir.tensor_type import Shape, shape_text
from graphc.ir.text.graph import value_text
from graphc.ops.linalg import MatMul
from graphc.view.render.style import printable

Rows = tuple[tuple[str, str], ...]
NAME = re.compile(r"(?<![\w.])[A-Za-z_][A-Za-z0-9_]*")
PREFIX = "d_"
WORDS = {
    "column": "column(v): v as a column, one number a row",
    "count": "count: how many elements are averaged",
    "onehot": "onehot(y): 1 at the index y of each row, else 0",
    "part": "part: the place of the operand in the joined value",
    "place": "place(v, cuts): zeros, with v where the cuts point",
    "project": "project(v): v - mean(v) - xhat(x) * mean(v * xhat(x))",
    "rows": "rows: all axes but the features'",
    "spread": "spread(v): v repeated along the axes that were reduced",
    "std": "std(x): sqrt(var(x) + eps) of each feature",
    "violations": "violations(s, y): 1 where a margin is violated, minus their number at y",
    "xhat": "xhat(x): (x - mean(x)) / std(x)",
}
"""The words that formulas use without definition, explained."""


def derivation(source: Plan | Graph, names: Iterable[str] | None = None) -> dict[str, Rows]:
    """Return the derivation of each backward node as (label, text) rows of plain Unicode text.

    For a plan, use the graph right after the pass `backward`.  For a single graph, use its names;
    nodes that passes have fused may be missing.  `names` are the wanted nodes, or None for
    all.
    """
    if isinstance(source, Graph):
        return _Derivation(source, source.forward()).rows(names)
    for records in source.graphs.values():
        for before, record in pairwise(records):
            if record.name == "backward":
                found = _Derivation(record.graph, set(before.graph.nodes)).rows(names)
                return {
                    name: (*rows, *_later(name, record.graph, records[-1].graph))
                    for name, rows in found.items()
                }
    return {}


def _later(name: str, before: Graph, final: Graph) -> Iterator[tuple[str, str]]:
    """Yield whether a later pass removed or replaced the node."""
    was, now = before[name], final.nodes.get(name)
    if now is None:
        users = [user for user in before.users[name] if user in final]
        into = f", part of {users[0]}" if users else ""
        yield "then", printable(f"taken out by a later pass{into}")
    elif now.op.name != was.op.name:
        yield "then", f"a later pass made {now.op.name} of {was.op.name}"


class _Derivation:
    """The backward nodes of one graph; `forward` are the nodes that are differentiated."""

    def __init__(self, graph: Graph, forward: set[str]) -> None:
        self.graph, self.forward = graph, forward

    def rows(self, names: Iterable[str] | None) -> dict[str, Rows]:
        """Return the rows of each wanted backward node whose rule is known."""
        wanted = self.graph.nodes.keys() if names is None else set(names)
        found: dict[str, Rows] = {}
        for node in self.graph:
            name = node.name
            if name in wanted and name.startswith(PREFIX) and name not in self.forward:
                rows = [(label, printable(text)) for label, text in self._rows(node)]
                if rows:
                    found[name] = tuple(dict.fromkeys(rows))
        return found

    def _rows(self, node: Node) -> Iterator[tuple[str, str]]:
        target, part = self._target(node.name)
        if target is None:
            return
        if node.op.is_constant and not part:
            yield "start", f"{node.name} = 1: {target.name} is what is differentiated"
        elif part and not part.isdigit() and not part.startswith("sum"):
            yield "a step of", f"the gradient of {self._applied(target)}"
            for position in range(len(target.inputs)):
                yield from self._formula(target, position, f"{PREFIX}{target.inputs[position]}")
        elif self._is_sum(node, target, part):
            known = [name for name in self._users(target.name) if self._cotangent(name)]
            users = ", ".join(dict.fromkeys(known))
            yield "sum", f"{target.name} is read by {users}: their contributions add up"
            yield "here", f"{node.name} = {' + '.join(node.inputs)}"
        else:
            yield from self._contribution(node, target)

    def _target(self, name: str) -> tuple[Node | None, str]:
        """Return the forward node in the name, and the part of the name after it."""
        rest, part = name.removeprefix(PREFIX), ""
        while rest:
            if rest in self.forward and rest in self.graph:
                return self.graph[rest], part
            rest, _, last = rest.rpartition(".")
            part = f"{last}.{part}" if part else last
        return None, ""

    def _users(self, name: str) -> list[str]:
        return [user for user in self.graph.users[name] if user in self.forward]

    def _is_sum(self, node: Node, target: Node, part: str) -> bool:
        several = len(self._users(target.name)) > 1 and not part.isdigit()
        return node.op.name == "add" and (several or part.startswith("sum"))

    def _contribution(self, node: Node, target: Node) -> Iterator[tuple[str, str]]:
        user = self._user(node, target)
        if user is None:
            return
        yield "from", self._applied(user)
        for position, operand in enumerate(user.inputs):
            if operand == target.name:
                yield from self._formula(user, position, node.name)
        yield from _shapes(node, self.graph)

    def _user(self, node: Node, target: Node) -> Node | None:
        """Return the user of `target` whose cotangent the node is computed from."""
        users = list(dict.fromkeys(self._users(target.name)))
        # Comparisons read a value too, but no gradient flows through them.
        users = [name for name in users if self._flows(self.graph[name], target)] or users
        if len(users) == 1:
            return self.graph[users[0]]
        cotangents = {self._cotangent(user): user for user in users}
        seen, stack = set(), list(node.inputs)
        while stack:
            name = stack.pop()
            if name in cotangents:
                return self.graph[cotangents[name]]
            if name not in seen and name not in self.forward:
                seen.add(name)
                stack.extend(self.graph[name].inputs)
        return None

    def _cotangent(self, name: str) -> str:
        """Return the node that holds a forward node's cotangent, or "" if there is none.

        It is the forward node's own, the only contribution to it, or that of its only user.
        """
        while f"{PREFIX}{name}" not in self.graph:
            if f"{PREFIX}{name}.1" in self.graph:  # no gradient came from the other users
                return f"{PREFIX}{name}.1"
            users = self._users(name)
            if len(users) > 1:  # some may be read by nothing that is differentiated
                users = [user for user in users if self._is_reached(user)]
            if len(users) != 1:
                return ""
            (name,) = users
        return f"{PREFIX}{name}"

    def _is_reached(self, name: str) -> bool:
        return f"{PREFIX}{name}" in self.graph or f"{PREFIX}{name}.1" in self.graph

    def _applied(self, node: Node) -> str:
        roles = [f"{role}=" for role in node.op.roles] or [""] * len(node.inputs)
        operands = [f"{r}{i}" for r, i in zip(roles, node.inputs, strict=False)]
        return f"{node.name} = {node.op.name}({', '.join(operands)})"

    def _flows(self, user: Node, target: Node) -> bool:
        """Return whether a gradient of the user reaches the target."""
        places = (i for i, operand in enumerate(user.inputs) if operand == target.name)
        return any(formula_of(user.op, place) for place in places)

    def _formula(self, user: Node, position: int, made: str) -> Iterator[tuple[str, str]]:
        text = formula_of(user.op, position)
        if not text:
            return
        roles = user.op.roles
        role = roles[position] if position < len(roles) else f"operand {position + 1}"
        operand = user.inputs[position]
        rule = text.replace(" @ ", " · ").replace(".T", "ᵀ")  # as it is written by hand
        yield "rule", f"{PREFIX}{role} = {rule}"
        own = attributes(user.op)
        used = NAME.findall(rule)
        names = {
            "out": user.name,
            "d_out": self._cotangent(user.name) or f"{PREFIX}{user.name}",
            **{key: value_text(own[key]) for key in used if key in own},
            **dict(zip(roles, user.inputs, strict=False)),
        }
        written = NAME.sub(lambda match: names.get(match[0], match[0]), rule)
        shape = self.graph[operand].type.shape
        spread = user.op.broadcasts and shape != user.type.shape
        more = f", summed to {shape_text(shape)}" if spread else ""
        yield "here", f"{made} = {written}{more}"
        for word in dict.fromkeys(used):
            if word in WORDS and word not in {*roles, *own}:
                yield "where", WORDS[word]


def _shapes(node: Node, graph: Graph) -> Iterator[tuple[str, str]]:
    """Yield the operands that the node itself reads, with their shapes."""
    shapes = [graph[name].type.shape for name in node.inputs]
    if isinstance(node.op, MatMul):
        a = _shape_read(shapes[0], node.op.trans_a)
        b = _shape_read(shapes[1], node.op.trans_b)
        yield "shapes", f"{a} · {b} → {shape_text(node.type.shape)}"
    else:
        texts = [f"{n} {shape_text(s)}" for n, s in zip(node.inputs, shapes, strict=True)]
        yield "shapes", f"{node.op.name}: {', '.join(texts)} → {shape_text(node.type.shape)}"


def _shape_read(shape: Shape, transposed: bool) -> str:
    return shape_text((*shape[:-2], shape[-1], shape[-2]) if transposed else shape)
