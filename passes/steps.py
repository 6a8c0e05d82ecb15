"""Run a pass on the steps of a graph's loops, as on any graph.

    h = scan(step: a = x + 0; h = tanh(a))      ->      h = scan(step: h = tanh(x))

All results of a loop get the new step, without the operands that it no longer reads.  A step knows
what passes made of it, since the programs of a plan run the same passes on the same loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from graphc.ir.graph import Graph, Node
from graphc.ir.step_graph import StepGraph
from graphc.ir.verify import verify
from graphc.ops.scan import Scan, loops


def on_steps(run: Callable[[Graph], Graph], graph: Graph) -> Graph:
    """Return the graph whose loops have the steps that `run` makes of theirs.

    A step is a graph whose outputs are the values that the loop hands on or returns.  `run` returns
    the same object if it changes nothing.
    """
    return _with_steps(lambda _, step, results: _known(run, step, results), graph)


def each_step(run: Callable[[Node, Graph], Graph], graph: Graph) -> Graph:
    """Return the graph with the steps that `run` makes, given the first result of each loop."""
    return _with_steps(lambda node, *step: _made(partial(run, node), *step), graph)


Made = tuple[StepGraph, Graph] | None
"""The step that a pass makes, and its graph; None if nothing changes."""


def _with_steps(make: Callable[[Node, StepGraph, tuple[str, ...]], Made], graph: Graph) -> Graph:
    changed: dict[str, Node | None] = {}
    for nodes in loops(graph).values():
        changed.update(_changed(make, nodes))
    return graph.replace(changed) if changed else graph


def _changed(
    make: Callable[[Node, StepGraph, tuple[str, ...]], Made], nodes: Sequence[Node]
) -> dict[str, Node]:
    """Return the nodes of a loop that change."""
    op = nodes[0].op
    assert isinstance(op, Scan), "the results of a loop"
    made = make(nodes[0], op.step, _results(nodes))
    if made is None:
        return {}
    found, graph = made
    operands = dict(zip(op.step.inputs, nodes[0].inputs, strict=True))
    inputs = tuple(operands[name] for name in found.inputs)
    return {node.name: _with_step(node, found, inputs, graph) for node in nodes}


def _known(run: Callable[[Graph], Graph], step: StepGraph, results: tuple[str, ...]) -> Made:
    """Return what a pass makes of a step, which knows it from the second time on."""
    key = id(run), results
    if key not in step.made:
        step.made[key] = run, _made(run, step, results)
    found: Made = step.made[key][1]
    return found


def _made(run: Callable[[Graph], Graph], step: StepGraph, results: tuple[str, ...]) -> Made:
    before = step.graph(results)
    made = run(before)
    if made is before:
        return None
    verify(made, before)
    found = step.of(made)
    if found == step:  # all that was left out is an input that stays
        return None
    return found, made


def _results(nodes: Sequence[Node]) -> tuple[str, ...]:
    """Return the nodes of the step that the results of a loop read."""
    ops = (node.op for node in nodes)
    return tuple([op.result for op in ops if isinstance(op, Scan) and op.kind != "last"])


def _with_step(node: Node, step: StepGraph, inputs: tuple[str, ...], made: Graph) -> Node:
    op = node.op
    assert isinstance(op, Scan), "the results of a loop"
    result = op.result if op.kind == "last" else made.outputs[op.result]
    return replace(node, op=replace(op, step=step, result=result), inputs=inputs)
