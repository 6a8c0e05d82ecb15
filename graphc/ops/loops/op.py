"""A loop over the steps of a sequence: one graph, compiled once, that runs at each step.

`Scan` is the op and its meaning, `graphc.ops.loops.layer` declares it, and
`graphc.ops.loops.gradient` has its gradient rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from graphc.base.errors import counted
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.interpreter import Rule, by_reference, interpret
from graphc.ir.op import Array, Cotangents, Op
from graphc.ir.step_graph import Kind, StepGraph, flops, stacked
from graphc.ir.tensor_type import Batch, TensorType
from graphc.ir.verify import verify
from graphc.ops.loops.gradient import gradient

Values = dict[str, Array]


@dataclass(frozen=True)
class Scan(Op):
    """One result of a loop; the nodes of its other results have the same step and operands.

    The operands are those of `step`: sequences (steps, ...), initial values, whole values.
    """

    step: StepGraph
    steps: int
    kind: Kind
    result: str
    """The node of the step whose values make the result; for "last", the input of a carried one."""
    reverse: bool = False
    """True if the last step runs first."""

    is_joint = True
    lowering = "lower loops"

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of the result; raise ValueError if the operands are not the step's."""
        step, wanted = self.step, self.step.inputs
        if len(ins) != len(wanted):
            raise ValueError(f"the step has {counted(len(wanted), 'input')}, not {len(ins)}")
        for position, (name, given) in enumerate(zip(wanted, ins, strict=True)):
            own = step.types[name]
            if position < len(step.sequences):
                own = stacked(own, self.steps)
            if given != own:
                raise ValueError(f"the operand of {name!r} is {given}, the step takes {own}")
        for one in step.carried:
            before, after = step.types[one.input], step.types[one.next]
            if before != after:
                raise ValueError(f"the next value of {one.input!r} is {after}, not {before}")
        found = step.types[self.result]
        return stacked(found, self.steps) if self.kind == "stacked" else found

    @cached_property
    def joint(self) -> Scan:
        """The same loop, whatever its result: equal for all results of one loop."""
        return replace(self, kind="stacked", result="")

    def with_inside(
        self, nodes: Sequence[Node], run: Callable[[Graph], Graph]
    ) -> dict[str, Node | None]:
        """Return the results of a loop with the step that a pass makes.

        The step is a graph whose outputs are the values that the loop hands on or returns; the loop
        loses the operands that it no longer reads.
        """
        before = self.step.graph(_results(nodes))
        made = run(before)
        if made is before:
            return {}
        verify(made, before)
        found = self.step.of(made)
        if found == self.step:  # all that was left out is an input that stays
            return {}
        inputs = self._operands(nodes[0], found)
        return {node.name: _with_step(node, found, inputs, made) for node in nodes}

    def pruned(self, nodes: Sequence[Node]) -> dict[str, Node | None]:
        """Return the results of a loop without the carried values that none of them needs."""
        lasts = [op.result for op in _scans(nodes) if op.kind == "last"]
        found = self.step.pruned(_results(nodes), lasts)
        if len(found.nodes) == len(self.step.nodes) and found.inputs == self.step.inputs:
            return {}
        inputs = self._operands(nodes[0], found)
        pairs = zip(nodes, _scans(nodes), strict=True)
        return {n.name: replace(n, op=replace(op, step=found), inputs=inputs) for n, op in pairs}

    def _operands(self, node: Node, step: StepGraph) -> tuple[str, ...]:
        """Return the operands of a result that are left if the loop has another step."""
        operands = dict(zip(self.step.inputs, node.inputs, strict=True))
        return tuple(operands[name] for name in step.inputs)

    def reference(self, ins: Sequence[Array]) -> Array:
        """Compute the steps as `reference_in` does in inference."""
        return self.reference_in(ins, train=False)

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        """Compute the steps by the reference rules of their ops."""
        return self.computed_by(by_reference(self.rows(ins), train), ins)

    def computed_by(self, rule: Rule, ins: Sequence[Array]) -> Array:
        """Compute the nodes of one step after another by a rule, and collect what is asked for.

        Rows whose steps are over keep their carried values, and their results are 0: the step
        itself says so, by its input of lengths.
        """
        carried = self._initial(ins)
        found: dict[int, Array] = {}
        for t, values in self.runs(ins, rule):
            carried = {one.input: values[one.next] for one in self.step.carried}
            if self.kind != "last":
                found[t] = values[self.result]
        return carried[self.result].copy() if self.kind == "last" else self._collected(found, ins)

    def runs(self, ins: Sequence[Array], rule: Rule | None = None) -> Iterator[tuple[int, Values]]:
        """Yield, step by step, the position and the values of nodes, computed when asked for."""
        carried = self._initial(ins)
        rule = rule or by_reference(self.rows(ins))
        for t in self.order(ins):
            given = dict(carried)
            slices = zip(self.step.sequences, ins, strict=False)
            given |= {name: np.asarray(x[t]) for name, x in slices}
            if self.step.number:
                given[self.step.number] = np.asarray(t, np.int32)
            values = interpret(self.step.nodes, rule, given)
            carried |= {one.input: values[one.next] for one in self.step.carried}
            yield t, values

    def _initial(self, ins: Sequence[Array]) -> dict[str, Array]:
        """Return the carried values before the first step, and the whole values."""
        first = len(self.step.sequences)
        return dict(zip(self.step.inputs[first:], ins[first:], strict=True))

    def _collected(self, found: Mapping[int, Array], ins: Sequence[Array]) -> Array:
        shape = tuple(
            dim.at(self.rows(ins)) if isinstance(dim, Batch) else dim
            for dim in self.step.types[self.result].shape
        )
        dtype = self.step.types[self.result].dtype
        if self.kind == "sum":
            return np.asarray(sum(found.values(), np.zeros(shape, dtype)))
        made = np.zeros((self.steps, *shape), dtype)
        for t, array in found.items():
            made[t] = array
        return made

    def flops(self, ins: Sequence[TensorType], out: TensorType, n: int) -> tuple[int, int]:
        """Return the operations of all steps, which all results of the loop have in common."""
        own, products = flops(self.step.nodes, self.step.types, n)
        return self.steps * own, self.steps * products

    def order(self, ins: Sequence[Array]) -> Iterator[int]:
        """Return the positions of the steps that run, in order: those of the longest row."""
        count = self.steps
        if self.step.lengths:
            lengths = ins[self.step.inputs.index(self.step.lengths)]
            count = min(max(int(lengths.max(initial=0)), 0), count)
        return reversed(range(count)) if self.reverse else iter(range(count))

    def rows(self, ins: Sequence[Array]) -> int:
        """Return the rows of the batch, read off the operands; 1 if none has them."""
        for position, (name, array) in enumerate(zip(self.step.inputs, ins, strict=True)):
            first = position < len(self.step.sequences)
            for axis, dim in enumerate(self.step.types[name].shape):
                rows = dim.rows(array.shape[axis + first]) if isinstance(dim, Batch) else None
                if rows is not None:
                    return rows
        return 1

    def joint_grad(self, b: Builder, nodes: Sequence[Node], douts: Sequence[Value]) -> Cotangents:
        """Build the gradient of all results of the loop: a loop in the other direction."""
        return gradient(b, self, nodes, douts)


def _scans(nodes: Sequence[Node]) -> list[Scan]:
    """Return the ops of the results of a loop."""
    return [node.op for node in nodes if isinstance(node.op, Scan)]


def _results(nodes: Sequence[Node]) -> list[str]:
    """Return the nodes of the step that the results of a loop read."""
    return [op.result for op in _scans(nodes) if op.kind != "last"]


def _with_step(node: Node, step: StepGraph, inputs: tuple[str, ...], made: Graph) -> Node:
    (op,) = _scans([node])
    result = op.result if op.kind == "last" else made.outputs[op.result]
    return replace(node, op=replace(op, step=step, result=result), inputs=inputs)


def loops(graph: Iterable[Node]) -> dict[tuple[Scan, tuple[str, ...]], list[Node]]:
    """Return the nodes of each loop of a graph or a step, by what its results have in common."""
    found: dict[tuple[Scan, tuple[str, ...]], list[Node]] = {}
    for node, op in [(node, node.op) for node in graph if isinstance(node.op, Scan)]:
        found.setdefault((op.joint, node.inputs), []).append(node)
    return found
