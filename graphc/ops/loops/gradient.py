"""The gradient of a loop: a loop over the same steps in the other direction.

    h = tanh(x + h @ w)      ->      d_a = (d_h + d_y) * (1 - h**2)
    y = h                            d_h = d_a @ w.T,  d_x = d_a,  d_w += h_before.T @ d_a

The values of a step that its gradient reads are kept as further results of the loop, but for
those that only move numbers or compare them, and for those of loops inside, which it recomputes.

A cotangent that a step hands on is 0 where it is below NEGLIGIBLE.  It would else shrink to
subnormal numbers over many steps, with which processors are 20 times slower.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Cotangents
from graphc.ir.step_graph import Carried, StepGraph, stacked
from graphc.ops.autodiff import vjp
from graphc.ops.functions import abs_
from graphc.ops.select import where
from graphc.ops.source import Input, constant
from graphc.ops.sums import broadcast_to

NEGLIGIBLE = {"float32": 2.0**-80, "float64": 2.0**-900}
"""The least cotangent that a step hands on.

Its square, which Adam and its like divide by, is 0 in its dtype; its products with weights and
states are normal numbers yet.
"""


def gradient(b: Builder, op: Any, nodes: Sequence[Node], douts: Sequence[Value]) -> Cotangents:
    """Return the cotangents of a loop's operands from those of its results.

    `op` is the op of one of the `nodes`, which differ only in their result.
    """
    return _Gradient(b, op, nodes, douts).cotangents()


class _Gradient:
    """The gradient of one loop under construction.

    `inner` holds the nodes of the step and those of its gradient; the cotangents of what the step
    computes are inputs there.
    """

    def __init__(self, b: Builder, op: Any, nodes: Sequence[Node], douts: Sequence[Value]) -> None:
        self.b, self.inputs = b, nodes[0].inputs
        self.op = op
        ops: list[Any] = [node.op for node in nodes]
        self.asked = [(op.kind, op.result, d) for op, d in zip(ops, douts, strict=True)]
        self.step = _needed(ops)
        self.name = nodes[0].name
        self.inner = Builder.extending(self.step.graph(()))
        self.inner.locs = b.locs
        self.sequences: dict[str, Value] = {}
        """The inputs of the gradient that are slices, and their values outside."""
        self.whole: dict[str, Value] = {}
        self.initial: dict[str, Value] = {}

    def cotangents(self) -> Cotangents:
        """Build both loops and return the cotangents of the operands."""
        cotangents = self._given()
        wrt = [name for name in self.step.inputs if self.step.types[name].is_float]
        found = vjp(self.inner, cotangents, wrt)
        carried = tuple(
            Carried(before, self._handed_on(found, name)) for name, before in self.arriving.items()
        )
        loop = self._loop(found, carried)
        ends: list[Value | None] = []
        for position, name in enumerate(self.op.step.inputs):
            ends.append(self._end(loop, position, name, found))
        return ends

    def _given(self) -> dict[str, Value]:
        """Add the cotangents of the values of a step as inputs; return their sum for each node."""
        parts: dict[str, list[Value]] = {}
        self.arriving: dict[str, str] = {}
        """The input with the cotangent of each carried value."""
        for one in self.step.carried:
            type = self.step.types[one.input]
            if type.is_float:
                arrived = self._input(f"d_{one.input}.next", one.input)
                self.arriving[one.input] = arrived.name
                self.initial[arrived.name] = self._zeros(one.input)
                parts.setdefault(one.next, []).append(arrived)
        for kind, result, dout in self.asked:
            if kind == "last":
                self.initial[self.arriving[result]] = dout
                continue
            made = self._input(f"d_{result}.given", result)
            (self.sequences if kind == "stacked" else self.whole)[made.name] = dout
            parts.setdefault(result, []).append(made)
        return {name: _total(values) for name, values in parts.items()}

    def _input(self, name: str, like: str) -> Value:
        type = self.step.types[like]
        node = Node(self.inner.unique(name), Input(type.shape, type.dtype), (), type)
        return self.inner.insert(node)

    def _zeros(self, like: str) -> Value:
        type = self.step.types[like]
        return broadcast_to(constant(self.b, 0.0, type.dtype), type.shape)

    def _handed_on(self, found: dict[str, Value], name: str) -> str:
        """Return the node of the cotangent of a carried value for the step before; 0 if none."""
        type = self.step.types[name]
        zero = constant(self.inner, 0.0, type.dtype)
        if name not in found:
            found[name] = broadcast_to(zero, type.shape, name=self.inner.unique(f"d_{name}"))
            return found[name].name
        arrived = found[name]
        return where(abs_(arrived) < NEGLIGIBLE[type.dtype], zero, arrived).name

    # ------------------------------------------------------------------ the loop

    def _loop(self, found: dict[str, Value], carried: tuple[Carried, ...]) -> StepGraph:
        """Return the step of the gradient; its inputs from the forward loop are in `sequences`."""
        ends = [*(value.name for value in found.values()), *(one.next for one in carried)]
        graph = Graph("gradient", self.inner.nodes.values(), outputs={name: name for name in ends})
        nodes = self._with_kept(graph.pruned(), carried)
        number, lengths = self.step.number, self.step.lengths
        step = StepGraph((), (*self.sequences,), (), (*self.whole,), number, lengths)
        return step.with_nodes(nodes, carried)

    def _with_kept(self, graph: Graph, carried: Iterable[Carried]) -> tuple[Node, ...]:
        """Return the nodes of the gradient, with inputs in the place of values that are kept."""
        own = self.step.types
        operands = dict(zip(self.op.step.inputs, self.inputs, strict=True))
        needed = {name for node in graph if node.name not in own for name in node.inputs}
        needed |= {one.next for one in carried} | set(graph.outputs.values())
        nodes: dict[str, Node] = {}
        for node in reversed(list(graph)):
            if node.name in own:
                if node.name not in needed:
                    continue
                node = self._kept(node, operands)
            needed.update(node.inputs)
            nodes[node.name] = node
        arriving = [self.inner.nodes[one.input] for one in carried if one.input not in nodes]
        lengths = [self._kept(self.inner.nodes[n], operands) for n in self._lengths(nodes)]
        return (*arriving, *lengths, *reversed(nodes.values()))

    def _lengths(self, nodes: dict[str, Node]) -> list[str]:
        name = self.step.lengths
        return [name] if name and name not in nodes else []

    def _kept(self, node: Node, operands: dict[str, str]) -> Node:
        """Return a node of the step as its gradient has it: recomputed, or an input."""
        name = node.name
        if name in self.step.sequences:
            self.sequences[name] = Value(self.b, operands[name])
        elif name in self.step.whole:
            self.whole[name] = Value(self.b, operands[name])
        elif name != self.step.number and not _is_cheap(node):
            self.sequences[name] = self._stack(node)
            return Node(name, Input(node.type.shape, node.type.dtype), (), node.type, node.locs)
        return node

    def _stack(self, node: Node) -> Value:
        """Return the values of a node at all steps, as a further result of the forward loop."""
        op = replace(self.op, kind="stacked", result=node.name)
        type = stacked(node.type, self.op.steps)
        name = self.b.unique(f"{self.name}.{node.name}")
        return self.b.insert(Node(name, op, self.inputs, type, self.b.locs or ()))

    def _end(
        self, loop: StepGraph, position: int, name: str, found: dict[str, Value]
    ) -> Value | None:
        """Return the cotangent of an operand as a result of the loop."""
        if name not in found:
            return None
        first = len(self.op.step.sequences)
        result, kind = found[name].name, "sum"
        if position < first:
            kind = "stacked"
        elif name in self.arriving:
            result, kind = self.arriving[name], "last"
        given = {**self.sequences, **self.initial, **self.whole}
        operands = [given[one] for one in loop.inputs]
        reverse = not self.op.reverse
        op = replace(self.op, step=loop, kind=kind, result=result, reverse=reverse)
        return self.b.apply(op, *operands)


def _needed(ops: Sequence[Any]) -> StepGraph:
    """Return the step of a loop, as far as these of its results need it."""
    step: StepGraph = ops[0].step
    lasts = [op.result for op in ops if op.kind == "last"]
    return step.pruned([op.result for op in ops if op.kind != "last"], lasts)


def _total(values: Sequence[Value]) -> Value:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def _is_cheap(node: Node) -> bool:
    """Return whether a value is recomputed: moved numbers, a comparison, or a result of a loop."""
    if node.op.is_source:
        return node.op.is_constant
    return node.op.is_joint or node.op.only_moves or node.op.alias or node.type.dtype == "bool"
