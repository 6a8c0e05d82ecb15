"""Lowering of loops: the results of one loop become one instruction, whose step is a program.

y = scan(x, h0; step)          %w, y, last <- scan x, h0
last = scan(x, h0; step)  ->     program of the step: h.next <- tanh(x + h @ w)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.compiler.lowering import Build, Lowering
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op
from graphc.ir.step_graph import Carried, Kind, StepGraph
from graphc.ir.tensor_type import TensorType, align
from graphc.kernels.barriers import reads_of_others
from graphc.kernels.program import Instr, Program
from graphc.kernels.scan import CarriedBuffer, ScanKernel
from graphc.ops.elementwise import Add
from graphc.ops.loops.op import Scan, loops
from graphc.ops.shape import Reshape
from graphc.ops.source import Input
from passes.split_scans import runs_at_once


@dataclass(frozen=True)
class LoweredScan:
    """The instruction of a loop, and the type of its workspace."""

    instr: Instr
    workspace: TensorType


class LoopLowering:
    """Lowers the loops of a graph: all results of one by one instruction, at the first of them."""

    def __init__(self, low: Lowering) -> None:
        self._low = low
        self._loops = {n.name: nodes for nodes in loops(low.graph).values() for n in nodes}
        self._done: set[str] = set()

    def __call__(self, node: Node) -> None:
        """Add the instruction of the loop that a node is a result of, once."""
        low, nodes = self._low, self._loops[node.name]
        if nodes[0].name in self._done:
            return
        self._done.add(nodes[0].name)
        assert low.build is not None, "loops are lowered by programs"
        firsts: dict[Op, Node] = {}
        for one in nodes:
            firsts.setdefault(one.op, one)
        results, root = [*firsts.values()], low.grouping.root
        made = lower_scan(results, low.build, low.capacity, root, low.known_steps)
        low.types[made.instr.outs[0]] = made.workspace
        low.instrs.append(made.instr)
        for one in nodes:
            if (first := firsts[one.op]) is not one:
                low.copy(first.name, one.name, one.type, one.name)


def lower_scan(
    nodes: Sequence[Node],
    build: Build,
    capacity: int,
    root: Callable[[str], str],
    known: dict[object, Program],
) -> LoweredScan:
    """Return the instruction that computes a loop's results; `root` names an operand's buffer.

    `known` caches the programs of steps.
    """
    ops = [node.op for node in nodes if isinstance(node.op, Scan)]
    at_once = runs_at_once(ops[0].step, ops)
    step, sums = (ops[0].step, {}) if at_once else _with_sums(ops)
    step = _with_own_nexts(step)
    handed = {one.input for one in step.carried}
    results = {
        op.result: node.name
        for node, op in zip(nodes, ops, strict=True)
        if (op.kind == "stacked" or at_once) and op.result not in handed
    }
    rows = capacity * ops[0].steps if at_once else capacity
    key = nodes[0].name, tuple(ops), rows
    if key not in known:
        handed_on = {one.next: one.input for one in step.carried}
        known[key] = build(nodes[0].name, _needed(step, results), rows, handed_on, at_once)
    program = known[key]
    operands = dict(zip(ops[0].step.inputs, map(root, nodes[0].inputs), strict=True))
    buffers = [_carried(one, nodes, ops, operands, sums, results) for one in step.carried]
    carried = tuple(replace(one, result=program.outputs[one.result]) for one in buffers)
    workspace, slots = _workspace(program, step.whole, at_once)
    name = f"{nodes[0].name}.workspace"
    kernel = ScanKernel(
        program,
        ops[0].steps,
        name,
        ops[0].reverse,
        {k: operands[k] for k in step.sequences if k in program.feeds},
        {k: operands[k] for k in step.whole if k in program.feeds},
        carried,
        {program.outputs[k]: v for k, v in results.items() if k not in step.nexts},
        step.number if step.number in program.feeds else "",
        operands[step.lengths] if step.lengths else "",
        slots,
        reads_of_others(program, {one.result: one.feed for one in carried}),
        at_once=at_once,
    )
    outs = (name, *(node.name for node in nodes))
    ins = tuple(dict.fromkeys(kernel.operands))
    instr = Instr("repeat", "scan", ops[0], ins, outs, nodes[0].name, None, outs[1:], kernel)
    return LoweredScan(instr, TensorType((workspace,), "uint8"))


def _with_own_nexts(step: StepGraph) -> StepGraph:
    """Return the step whose carried values each have a next value of their own."""
    nodes, carried = list(step.nodes), list[Carried]()
    for one in step.carried:
        if any(one.next == other.next for other in carried):
            type, name = step.types[one.next], f"{one.input}.next"
            nodes.append(Node(name, Reshape(type.shape), (one.next,), type))
            one = replace(one, next=name)
        carried.append(one)
    return replace(step, nodes=tuple(nodes), carried=tuple(carried))


def _needed(step: StepGraph, results: Iterable[str]) -> Graph:
    """Return the graph of a step with what is needed, and all carried values."""
    graph = step.graph(results)
    needed = graph.upstream(graph.roots) | {one.input for one in step.carried}
    return graph.with_nodes(node for node in graph if node.name in needed)


def _with_sums(ops: Sequence[Scan]) -> tuple[StepGraph, dict[str, str]]:
    """Return the step with each sum as a carried value, and the input of each."""
    step, sums = ops[0].step, {}
    nodes, carried = list(step.nodes), list(step.carried)
    for op in ops:
        if op.kind == "sum" and op.result not in sums:
            type = step.types[op.result]
            before, after = f"{op.result}.sum", f"{op.result}.sum.next"
            nodes.append(Node(before, Input(type.shape, type.dtype), (), type))
            nodes.append(Node(after, Add(), (before, op.result), type))
            carried.append(Carried(before, after))
            sums[op.result] = before
    return replace(step, nodes=tuple(nodes), carried=tuple(carried)), sums


def _carried(
    one: Carried,
    nodes: Sequence[Node],
    ops: Sequence[Scan],
    operands: Mapping[str, str],
    sums: Mapping[str, str],
    results: Mapping[str, str],
) -> CarriedBuffer:
    """Return the buffers of a carried value."""
    asked_for = {(op.kind, op.result): node.name for node, op in zip(nodes, ops, strict=True)}

    def asked(kind: Kind, result: str) -> str:
        return asked_for.get((kind, result), "")

    summed = next((result for result, before in sums.items() if before == one.input), None)
    if summed is not None:
        return CarriedBuffer(one.input, one.next, "", asked("sum", summed))
    return CarriedBuffer(
        one.input,
        one.next,
        operands[one.input],
        asked("last", one.input),
        asked("stacked", one.input),
        results.get(one.next, ""),
    )


def _workspace(program: Program, whole: Iterable[str], at_once: bool) -> tuple[int, dict[str, int]]:
    """Return the bytes of the workspace, and the place in it of each slice that a step has."""
    offset = align(program.arena.nbytes)
    slots: dict[str, int] = {}
    if at_once:
        return offset, slots
    shared = {*whole, *program.aliases}
    for buffer in program.buffers.values():
        if buffer.space in ("feed", "result") and buffer.name not in shared:
            slots[buffer.name] = offset
            offset += align(buffer.type.nbytes(program.capacity))
    return offset, slots
