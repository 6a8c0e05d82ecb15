"""Reverse-mode differentiation: cotangents are new nodes of the graph that they differentiate.

`vjp` serves the Backward pass and derivatives inside a net, which `grad` declares; `pullback` the
gradient rules that differentiate a composition of ops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from graphc.base.errors import GraphError, RuleError, counted, shown
from graphc.base.work import spend_nodes
from graphc.ir.build import Builder, Value, apply, as_value, misfit
from graphc.ir.graph import Node
from graphc.ir.op import Cotangents, Layer, Op
from graphc.ir.tensor_type import TensorType, shape_text
from graphc.ops.apply import with_attributes
from graphc.ops.elementwise import Add
from graphc.ops.slicing import Concat, joined_axis, slice_start
from graphc.ops.source import constant
from graphc.ops.sums import broadcast_to

__all__ = ["grad"]

VISITED = 16
"""The number of nodes that are visited in the time in which one is made."""


def vjp(
    b: Builder,
    cotangents: Mapping[str, Value],
    wrt: Iterable[str],
    prefix: str = "d_",
    leaves: frozenset[str] = frozenset(),
) -> dict[str, Value]:
    """Return the cotangent of each `wrt` node, by name, from those of nodes that depend on it.

    Nodes without a gradient are left out.  New nodes are named `<prefix><node>` and take
    the lines of the node that they differentiate.  `leaves` count as constants.
    """
    return _Reverse(b, cotangents, frozenset(wrt), prefix, leaves).run()


def pullback(of: Value, dout: Value, ins: Sequence[Value]) -> list[Value | None]:
    """Return the cotangents of `ins`, taken as independent, through the nodes that compute `of`."""
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
        self.active = _depend_on(nodes, wrt, leaves)
        self.order = [node for node in nodes if node.name in self.active]
        self.expected = self._count_contributions(cotangents)
        self.parts: dict[str, list[Value]] = {name: [v] for name, v in cotangents.items()}
        self.joint = _joint_first(self.order)
        """For each result of a joint op, the first result of the same."""
        self.waiting: dict[str, dict[str, Value]] = {}
        """The cotangents of the results of a joint op, by the name of the first one."""

    def _count_contributions(self, cotangents: Mapping[str, Value]) -> dict[str, int]:
        """Return how many cotangents each node gets, by name."""
        counts = dict.fromkeys(cotangents, 1)
        for node in reversed(self.order):
            if node.name in counts and node.name not in self.leaves:
                for operand in node.inputs:
                    if operand in self.active:
                        counts[operand] = counts.get(operand, 0) + 1
        return counts

    def run(self) -> dict[str, Value]:
        """Return the gradients of `wrt` by name, adding up a node's cotangents before its VJP."""
        found: dict[str, Value] = {}
        saved = self.b.prefix, self.b.locs
        try:
            for node in reversed(self.order):
                parts = self.parts.pop(node.name, None)
                self.b.locs = node.locs
                if parts:
                    total = self._sum(node, parts)
                    if node.name in self.wrt:
                        found[node.name] = total
                    self._differentiate(node, total)
                if node.name in self.waiting:
                    self._differentiate_jointly(node, self.waiting.pop(node.name))
        finally:
            self.b.prefix, self.b.locs = saved
        return found

    def _sum(self, node: Node, parts: list[Value]) -> Value:
        """Return the sum of the cotangents of a node."""
        parts = self._concatenated(parts)
        # Added one by one, the last consumer's first: the bits of a sum depend on its order.
        total = parts[0]
        for i, part in enumerate(parts[1:], 2):
            last = i == len(parts)
            base = f"{self.prefix}{node.name}" + ("" if last else f".sum{i}")
            self.b.prefix = ""
            total = self.b.apply(Add(), total, part, name=self.b.unique(base))
        return total

    def _concatenated(self, parts: list[Value]) -> list[Value]:
        """Return the gradients of slices that tile a value as one concatenation, without sums."""
        axis = joined_axis([part.node for part in parts]) if len(parts) > 1 else None
        if axis is None:
            return parts
        self.b.prefix = ""
        ordered = sorted(parts, key=lambda part: slice_start(part.node.op))
        found = [Value(self.b, part.node.inputs[0]) for part in ordered]
        return [self.b.apply(Concat(axis), *found, name=self.b.unique(f"{parts[0].name}.joined"))]

    def _differentiate(self, node: Node, dout: Value) -> None:
        """Add the node's contributions to the cotangents of its operands."""
        if node.name in self.leaves or self.active.isdisjoint(node.inputs):
            return
        if node.op.is_joint:
            self.waiting.setdefault(self.joint[node.name], {})[node.name] = dout
            return
        self._contribute(
            node, lambda ins: node.op.grad(self.b, ins, Value(self.b, node.name), dout)
        )

    def _differentiate_jointly(self, first: Node, douts: Mapping[str, Value]) -> None:
        """Add what all results of a joint op contribute to the cotangents of its operands.

        Nodes that read one of them come after the first, so the cotangents are complete there.
        """
        nodes = [self.b.nodes[name] for name in douts]
        self._contribute(first, lambda _: first.op.joint_grad(self.b, nodes, [*douts.values()]))

    def _contribute(self, node: Node, rule: Callable[[list[Value]], Cotangents]) -> None:
        """Add what a rule makes of a node's operands to their cotangents."""
        b = self.b
        before = len(b.nodes)
        b.prefix = f"{self.prefix}{node.name}."
        ins = [Value(b, operand) for operand in node.inputs]
        try:
            contributions = rule(ins)
        except NotImplementedError:
            raise b.error(
                node.op,
                "it has no gradient rule\n"
                "give the op a grad rule, or stop before it: gc.stop_gradient(x)",
                ins,
                node.name,
                node.locs,
            ) from None
        except GraphError:
            raise
        except Exception as error:
            raise RuleError.of(node.op.name, "grad", error, node.name, node.loc) from error
        fault = wrong_cotangents(b, contributions, ins)
        if fault:
            hint = "return a tuple: for each operand a Value of its type, or None if none flows"
            raise RuleError(node.op.name, "grad", fault, node.name, node.loc, hint)
        self._collect(node, contributions, before)

    def _collect(self, node: Node, contributions: Sequence[Value | None], before: int) -> None:
        """Keep those new nodes that the contributions need, under the names of gradients."""
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
        wanted = needed(new, [part for _, part in pairs])
        for name, made in new.items():
            if name in wanted:
                inputs = tuple(names.get(i, i) for i in made.inputs)
                fields = names.get(name, name), made.op, inputs, made.type, made.locs
                self.b.insert(Node(*fields, origin=made.origin or node.origin or node.name))
        for operand, part in pairs:
            self.parts.setdefault(operand, []).append(Value(self.b, names.get(part, part)))

    def _pop_new(self, before: int) -> dict[str, Node]:
        """Remove and return the nodes that were made after the first `before`."""
        nodes = self.b.nodes
        new: dict[str, Node] = {}
        while len(nodes) > before:
            name, made = nodes.popitem()
            new[name] = made
        return dict(reversed(new.items()))

    def _gradient_name(self, operand: str, nth: int) -> str:
        """Return a free name for the nth contribution of a node to the cotangent of an operand."""
        base = f"{self.prefix}{operand}"
        if self.expected.get(operand, 1) > 1:
            base = f"{base}.{len(self.parts.get(operand, ())) + nth}"
        return self.b.unique(base)


def _joint_first(order: Iterable[Node]) -> dict[str, str]:
    """Return the first result of the same joint op for each of its results."""
    firsts: dict[tuple[Op, tuple[str, ...]], str] = {}
    joint = (node for node in order if node.op.is_joint)
    return {node.name: firsts.setdefault((node.op.joint, node.inputs), node.name) for node in joint}


def wrong_cotangents(b: Builder, found: object, ins: Sequence[Value]) -> str:
    """Return what is wrong with the form of what a gradient rule returns, or ""."""
    if not isinstance(found, (tuple, list)):
        return f"returns {type(found).__name__}, not a tuple of cotangents"
    if len(found) != len(ins):
        return f"gives {counted(len(found), 'cotangent')} for {counted(len(ins), 'operand')}"
    for x, part in zip(ins, found, strict=True):
        if part is None:
            continue
        if not isinstance(part, Value):
            return f"gives {x.name} {shown(part)}, not a Value or None"
        if part.builder is not b:
            return f"gives {x.name} {part.name!r}, a value of another net"
        if x.type.is_float and part.type != x.type:
            return f"gives {x.name} a cotangent of type {part.type}; {x.name} is {x.type}"
    return ""


def _upstream(
    nodes: Mapping[str, Node], names: Iterable[str], leaves: frozenset[str]
) -> list[Node]:
    """Return the named nodes and all that they depend on, up to the leaves, in graph order."""
    wanted = needed(nodes, names, leaves)
    spend_nodes(len(wanted) // VISITED)
    found: list[Node] = []
    for node in reversed(nodes.values()):  # type: ignore[call-overload]
        if node.name in wanted:
            found.append(node)
            if len(found) == len(wanted):
                break
    return found[::-1]


def _depend_on(nodes: Iterable[Node], wrt: frozenset[str], leaves: frozenset[str]) -> set[str]:
    """Return the float nodes that depend on one of `wrt`, which are included."""
    active: set[str] = set()
    for node in nodes:
        operands = () if node.name in leaves else node.inputs
        reached = node.name in wrt or any(operand in active for operand in operands)
        if reached and node.type.is_float:
            active.add(node.name)
    return active


def needed(
    nodes: Mapping[str, Node], names: Iterable[str], leaves: frozenset[str] = frozenset()
) -> set[str]:
    """Return the names of those `nodes` that the named ones are computed from, up to the leaves."""
    seen: set[str] = set()
    stack = list(names)
    while stack:
        name = stack.pop()
        if name in nodes and name not in seen:
            seen.add(name)
            if name not in leaves:
                stack.extend(nodes[name].inputs)
    return seen


class Gradient(Layer):
    """The derivative of a scalar with respect to another value of the net."""

    takes_pairs = True
    name = "grad"
    needs_expansion = True
    roles = ("of", "wrt")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return wrt's type; raise ValueError unless `of` is a float scalar and wrt floats."""
        of, wrt = ins
        if of.rank != 0 or not of.is_float:
            raise ValueError(
                f"of has shape {shape_text(of.shape)}, a gradient needs a scalar\n"
                "reduce it first: gc.sum(value)"
            )
        if not wrt.is_float:
            raise ValueError(f"wrt is {wrt.dtype}, gradients flow to floats")
        return wrt

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        """Build the reverse sweep from a cotangent of 1; zeros if `of` does not depend on wrt."""
        of, wrt = ins
        one = constant(b, 1.0, of.dtype, name=f"{name}.one")
        found = vjp(b, {of.name: one}, [wrt.name], prefix=f"{name}.d_")
        if wrt.name in found:
            return found[wrt.name]
        zero = constant(b, 0.0, wrt.dtype, name=f"{name}.zero")
        return broadcast_to(zero, wrt.shape, name=name)


@with_attributes(
    example=("(N, 3)", "gc.sum(x**2), x", "(N, 3)"),
    value="Floats of the shape ().",
    wrt="A value, or several, that `value` depends on.",
    found="Value or list of Value",
    returns="One for each of `wrt`, of its shape; 0 where no gradient flows, as through argmax.",
    raises="If `value` is not a scalar of floats, or does not depend on a `wrt` at all.",
)
def grad(value: Value, wrt: Value | Sequence[Value]) -> Value | list[Value]:
    """Return the derivative of a scalar value with respect to others.

    Gradients are values like any other, so they can be differentiated again.
    """
    targets = [wrt] if isinstance(wrt, Value) else list(wrt)
    for target in targets:
        _check_depends(as_value("grad", value), as_value("grad", target))
    found = [apply(Gradient(), value, target) for target in targets]
    return found[0] if isinstance(wrt, Value) else found


def _check_depends(value: Value, target: Value) -> None:
    """Raise GraphError if no path leads from the target to the value, both of one net."""
    if target.builder is not value.builder:
        return  # refused when the node is made
    if 0 in target.shape:
        return  # it has no number to depend on
    if target.name not in needed(value.builder.nodes, [value.name]):
        raise misfit(
            f"grad: {value.name!r} does not depend on {target.name!r}\n"
            "compute the value from it, or leave it out: its derivative is 0",
            of=value,
            wrt=target,
        )
