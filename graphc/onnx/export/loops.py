"""The writer of loops: all results of a loop become those of one Scan, whose body is the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from onnx import NodeProto, helper

from graphc.ir.graph import Node
from graphc.ir.tensor_type import TensorType
from graphc.onnx.convert.loops import LENGTHS
from graphc.onnx.export import Writer, value_info
from graphc.onnx.model_file import names_read
from graphc.ops.loops.op import Scan

WriteNodes = Callable[[Writer, Sequence[Node]], None]
NUMBER = TensorType((), "int32")
"""The type of the number of a step."""


def write_loop(w: Writer, nodes: Sequence[Node], write: WriteNodes) -> None:
    """Write the loop whose results are `nodes`; `write` writes the nodes of its body."""
    lasts = {("last", one.input): "" for one in _scan(nodes[0]).step.carried}
    stacked = {("stacked", op.result): "" for op in map(_scan, nodes) if op.kind != "last"}
    found = lasts | stacked
    for node in nodes:
        key = _scan(node).kind, _scan(node).result
        if found.get(key) == "":
            found[key] = node.name
    names = {key: name or w.fresh_name("result") for key, name in found.items()}
    w.prefix = next(iter(names.values()))
    loop = _Loop(w, nodes[0])
    loop.write(write, [result for _, result in stacked], list(names.values()))
    for node in nodes:
        kind, result = _scan(node).kind, _scan(node).result
        if kind == "sum":
            w.emit("ReduceSum", [names["stacked", result], w.ints([0])], node.name, keepdims=0)
        elif names[kind, result] != node.name:
            w.emit("Identity", [names[kind, result]], node.name)


def _live(nodes: Sequence[NodeProto], read: set[str]) -> list[NodeProto]:
    """Return the nodes that results need: not the keys of dropout and noise."""
    live: list[NodeProto] = []
    for node in reversed(nodes):
        if not read.isdisjoint(node.output):
            read.update(names_read([node]))
            live.append(node)
    return live[::-1]


def _scan(node: Node) -> Scan:
    assert isinstance(node.op, Scan)
    return node.op


class _Loop:
    """A loop that is being written; whole values are read by their names around it."""

    def __init__(self, w: Writer, node: Node) -> None:
        self.w, self.node, self.op = w, node, _scan(node)
        step = self.step = self.op.step
        states = len(step.sequences) + len(step.carried)
        self.sequences = node.inputs[: len(step.sequences)]
        self.initial = node.inputs[len(step.sequences) : states]
        self.names = dict(zip(step.whole, node.inputs[states:], strict=True))
        """The name in the model of each node of the step."""
        for inner in step.nodes:
            self.names.setdefault(inner.name, w.fresh_name(inner.name))
        self.inner = w.inside({self.names[name]: type for name, type in step.types.items()})

    def write(self, write: WriteNodes, stacked: Sequence[str], names: Sequence[str]) -> None:
        """Write the Scan, whose results are the last states, and then values of all steps."""
        step, back = self.step, int(self.op.reverse)
        numbers = self._numbers(stacked)
        own = [node for node in step.nodes if not node.op.is_input]
        write(self.inner, [self._renamed(node) for node in own])
        made = [self._result(name) for name in (*step.nexts, *stacked)]
        given = [self._given(name) for name in (*(x.input for x in step.carried), *step.sequences)]
        given += [value_info(name, NUMBER) for name in numbers.values()]
        sequences = [*self.sequences, *numbers]
        nodes = _live(self.inner.nodes, {value.name for value in made})
        body = helper.make_graph(nodes, names[0], given, made)
        if step.lengths:
            body.metadata_props.add(key=LENGTHS, value=self.names[step.lengths])
        self.w.emit(
            "Scan",
            [*self.initial, *sequences],
            names,
            body=body,
            num_scan_inputs=len(sequences),
            scan_input_directions=[back] * len(sequences),
            scan_output_directions=[back] * len(stacked) or None,
        )

    def _numbers(self, stacked: Sequence[str]) -> dict[str, str]:
        """Return a sequence of the numbers of steps, if there is need, and its name in the step.

        Scan has no such input, and must have a sequence at least.
        """
        read = {name for node in self.step.nodes for name in node.inputs}
        number = self.step.number
        if self.step.sequences and number not in {*read, *self.step.nexts, *stacked}:
            return {}
        known = self.names.get(number) or self.w.fresh_name("step")
        return {self.w.constant(range(self.op.steps), NUMBER.dtype): known}

    def _renamed(self, node: Node) -> Node:
        inputs = tuple(self.names[name] for name in node.inputs)
        return replace(node, name=self.names[node.name], inputs=inputs)

    def _given(self, name: str) -> Any:
        return value_info(self.names[name], self.step.types[name])

    def _result(self, name: str) -> Any:
        """Write a node as a result: ONNX does not take inputs or outer values, or one twice."""
        inner = self.inner
        inner.prefix = self.names[name]
        made = inner.emit("Identity", [self.names[name]], inner.fresh_name("result"))
        return value_info(made, self.step.types[name])
