"""Run a pass on the steps of a graph's loops, as on any graph.

    h = scan(step: a = x + 0; h = tanh(a))      ->      h = scan(step: h = tanh(x))

All results of a loop get the new step, without the operands that it no longer reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from graphc.ir.graph import Graph, Node
from graphc.ir.step_graph import StepGraph
from graphc.ir.verify import verify
from graphc.ops.scan import Scan, loops


def on_steps(run: Callable[[Graph], Graph], graph: Graph) -> Graph:
    """Return the graph whose loops have the steps that `run` makes of theirs.

    A step is a graph whose outputs are the values that the loop hands on or returns.  `run` returns
    the same object if it changes nothing.
    """
    changed: dict[str, Node | None] = {}
    for nodes in loops(graph).values():
        changed.update(_changed(run, nodes))
    return graph.replace(changed) if changed else graph


def _changed(run: Callable[[Graph], Graph], nodes: Sequence[Node]) -> dict[str, Node]:
    """Return the nodes of a loop that change."""
    op = nodes[0].op
    assert isinstance(op, Scan), "the results of a loop"
    step = op.step
    before = step.graph(_results(nodes))
    made = run(before)
    if made is before:
        return {}
    verify(made, before)
    found = step.of(made)
    if found == step:  # all that was left out is an input that stays
        return {}
    operands = dict(zip(step.inputs, nodes[0].inputs, strict=True))
    inputs = tuple(operands[name] for name in found.inputs)
    return {node.name: _with_step(node, found, inputs, made) for node in nodes}


def _results(nodes: Sequence[Node]) -> list[str]:
    """Return the nodes of the step that the results of a loop read."""
    ops = (node.op for node in nodes)
    return [op.result for op in ops if isinstance(op, Scan) and op.kind != "last"]


def _with_step(node: Node, step: StepGraph, inputs: tuple[str, ...], made: Graph) -> Node:
    op = node.op
    assert isinstance(op, Scan), "the results of a loop"
    result = op.result if op.kind == "last" else made.outputs[op.result]
    return replace(node, op=replace(op, step=step, result=result), inputs=inputs)
