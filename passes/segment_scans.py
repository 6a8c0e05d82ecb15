"""Cut long loops with products that `split_scans` takes out of them into segments.

    d_w = scan of 512 steps:          d_w = scan of 16 steps: sum of
            sum of x.T @ d_y     ->           d = scan of 32 steps: sum of x.T @ d_y

What goes before and after a loop, such as the products of all steps, is then made for a segment at
a time, and what is handed to and from it stays in caches.  Sums over steps, such as the gradients
of weights, are those of segments, also if `recompute_scans` cuts the loop.
Only loops whose number of steps has a divisor near `LENGTH` are cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.step_graph import Carried, StepGraph, stacked
from graphc.ir.tensor_type import TensorType
from graphc.ops.arithmetic import FloorDiv
from graphc.ops.elementwise import Add, Mul, Sub
from graphc.ops.loops.op import Scan, loops
from graphc.ops.shape import Cast, Reshape
from graphc.ops.source import Input, constant
from passes.contract import graph_pass
from passes.split_scans import splits

LENGTH = 32
"""The length of a segment that is aimed at, in steps."""


@graph_pass(preserves="reassociated", on_steps=False)
def segment_scans(graph: Graph) -> Graph:
    """Return the graph with loops over segments in the place of long ones."""
    found = {n[0].name: n for n in loops(graph).values() if is_long(n) and splits(graph, n)}
    return in_segments(graph, found) if found else graph


def in_segments(graph: Graph, found: Mapping[str, Sequence[Node]]) -> Graph:
    """Return the graph with loops over segments; `found` has their nodes, by the first of them."""
    b = Builder.like(graph)
    placed: set[str] = set()
    for node in graph:
        if node.name in placed:
            continue
        if node.name in found:
            _Segments(b, found[node.name]).add()
            placed.update(n.name for n in found[node.name])
        else:
            b.insert(node)
    b.take_roots(graph, {})
    return b.graph()


def is_long(nodes: Sequence[Node]) -> bool:
    """Return whether a loop has so many steps that it can be cut."""
    op = nodes[0].op
    return isinstance(op, Scan) and segment(op.steps) is not None


def segment(steps: int) -> int | None:
    """Return the steps of a segment: the divisor nearest to LENGTH; None if a loop stays whole."""
    near = (k for k in range(LENGTH // 2, 2 * LENGTH + 1) if steps % k == 0 and steps > k)
    return min(near, key=lambda k: abs(k - LENGTH), default=None)


class _Segments:
    """One loop, as a loop over segments under construction."""

    def __init__(self, b: Builder, nodes: Sequence[Node]) -> None:
        self.b, self.nodes = b, nodes
        self.ops = [node.op for node in nodes if isinstance(node.op, Scan)]
        self.op, self.step = self.ops[0], self.ops[0].step
        self.size = segment(self.op.steps) or 1
        self.count = self.op.steps // self.size
        self.name = nodes[0].name
        self.inner = Builder("segment")
        self.inner.locs = b.locs = nodes[0].locs

    def add(self) -> None:
        """Add the nodes of the loop over segments, with the names of the results."""
        operands = dict(zip(self.step.inputs, self.nodes[0].inputs, strict=True))
        given = {name: self._cut(name, Value(self.b, operands[name])) for name in self.step.inputs}
        outer, results = self._outer()
        if outer.lengths:
            given[outer.lengths] = self._segments_of(Value(self.b, operands[self.step.lengths]))
        inputs = [given[name] for name in outer.inputs]
        for node, op in zip(self.nodes, self.ops, strict=True):
            kind = replace(op, step=outer, steps=self.count, result=results[node.name])
            if op.kind != "stacked":
                self.b.apply(kind, *inputs, name=node.name)
                continue
            apart = self.b.apply(kind, *inputs, name=self.b.unique(f"{node.name}.apart"))
            self.b.apply(Reshape(node.type.shape), apart, name=node.name)
        self.b.locs = ()

    def _cut(self, name: str, value: Value) -> Value:
        """Return an operand, a sequence in segments."""
        if name not in self.step.sequences:
            return value
        shape = (self.count, self.size, *value.shape[1:])
        name = self.b.unique(f"{self.name}.{name}")
        return self.b.apply(Reshape(shape), value, name=name)

    def _segments_of(self, lengths: Value) -> Value:
        """Return the number of segments of each row."""
        b, size, name = self.b, self.size, f"{self.name}.segments"
        rest = constant(b, size - 1, lengths.dtype, name=f"{name}.rest")
        more = b.apply(Add(), lengths, rest, name=f"{name}.more")
        by = constant(b, size, lengths.dtype, name=f"{name}.size")
        return b.apply(FloorDiv(), more, by, name=name)

    # ------------------------------------------------------------------ the step of the outer loop

    def _outer(self) -> tuple[StepGraph, dict[str, str]]:
        """Return the step over a segment, and the node of it for each result of the loop."""
        step = self.step
        outer = {name: self._input(name, self._type(name)) for name in step.inputs}
        counts = step.number or step.lengths
        number = self._input("segment", TensorType((), "int32")) if counts else None
        inner, more = self._steps(number, outer)
        operands = [{**outer, **more}[name] for name in inner.inputs]
        results = {
            node.name: self._result(inner, op.kind, op.result, operands)
            for node, op in zip(self.nodes, self.ops, strict=True)
        }
        nexts = [self._result(inner, "last", one.input, operands) for one in step.carried]
        carried = tuple(
            Carried(one.input, value) for one, value in zip(step.carried, nexts, strict=True)
        )
        lengths = self._lengths(step)
        for node, op in zip(self.nodes, self.ops, strict=True):
            if op.kind == "last":
                results[node.name] = op.result
        whole = (*step.whole, *filter(None, (lengths,)))
        nodes = tuple(self.inner.nodes.values())
        named = number.name if number is not None else ""
        return StepGraph(nodes, step.sequences, carried, whole, named, lengths), results

    def _lengths(self, step: StepGraph) -> str:
        """Add the input for the number of segments of each row, and return its name."""
        if not step.lengths:
            return ""
        return self._input(f"{step.lengths}.segments", step.types[step.lengths]).name

    def _type(self, name: str) -> TensorType:
        type = self.step.types[name]
        return stacked(type, self.size) if name in self.step.sequences else type

    def _input(self, name: str, type: TensorType) -> Value:
        op = Input(type.shape, type.dtype)
        return self.inner.insert(Node(self.inner.unique(name), op, (), type))

    def _result(self, inner: StepGraph, kind: Any, result: str, operands: Sequence[Value]) -> str:
        op = replace(self.op, step=inner, steps=self.size, kind=kind, result=result)
        node = next((n for n in self.inner.nodes.values() if n.op == op), None)
        return node.name if node is not None else self.inner.apply(op, *operands).name

    # ------------------------------------------------------------------ the step of the inner loop

    def _steps(
        self, number: Value | None, outer: Mapping[str, Value]
    ) -> tuple[StepGraph, dict[str, Value]]:
        """Return the step of the loop over one segment, and its operands beside the old ones."""
        step = self.step
        if number is None:
            return step, {}
        b, more = self.inner, {}
        start = b.apply(Mul(), number, constant(b, self.size, "int32"))
        nodes, whole = list(step.nodes), list(step.whole)
        if step.number:
            nodes, name = _with_start(step)
            more[name] = start
            whole.append(name)
        lengths = ""
        if step.lengths:
            type = step.types[step.lengths]
            before = start if type.dtype == "int32" else b.apply(Cast(type.dtype), start)
            lengths = _free(step, f"{step.lengths}.left")
            more[lengths] = b.apply(Sub(), outer[step.lengths], before)
            nodes.append(Node(lengths, Input(type.shape, type.dtype), (), type))
            whole.append(lengths)
        new = replace(step, nodes=tuple(nodes), whole=tuple(whole), lengths=lengths)
        return new, more


def _with_start(step: StepGraph) -> tuple[list[Node], str]:
    """Return the nodes, which count steps from a start that is an input, and its name."""
    start, total = _free(step, f"{step.number}.start"), _free(step, f"{step.number}.total")
    type = step.types[step.number]
    nodes = [Node(start, Input(type.shape, type.dtype), (), type)]
    for node in step.nodes:
        nodes.append(node.reading({step.number: total}))
        if node.name == step.number:
            nodes.append(Node(total, Add(), (start, step.number), type))
    return nodes, start


def _free(step: StepGraph, name: str) -> str:
    while name in step.types:
        name += "_"
    return name
