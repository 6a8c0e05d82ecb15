"""Round the factors of products that have an order of terms, once, where they are made.

    h = affine(x, w, b)  order="pairs"  ->  x.bf16 = to_bfloat16(x)
                                            w.bf16 = to_bfloat16(w)
                                            h = affine(x.bf16, w.bf16, b)  order="pairs"

Products round their factors themselves until then; no bit changes.  Each operand is rounded once,
for all its products; one that is only moved on its way there is rounded before.  Constant weights
are stored rounded, which halves their bytes.  What is the same in each step of a loop is rounded
before the loop.  The pass runs once gradients and updates are there, since no gradient flows
through rounding.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.narrow import narrow
from graphc.ir.op import step_of, with_step
from graphc.ir.step_graph import StepGraph
from graphc.ops.linalg import order_of
from graphc.ops.rounding import RoundBfloat16, ToBfloat16
from graphc.ops.source import Constant, Input
from passes.contract import graph_pass
from passes.steps import on_steps


@graph_pass(preserves="bitwise", on_steps=False)
def round_products(graph: Graph) -> Graph:
    """Return the graph whose ordered products read bfloat16, also in the steps of loops."""
    return with_rounded_factors(ToBfloat16(), graph)


def with_rounded_factors(rounding: ToBfloat16 | RoundBfloat16, graph: Graph) -> Graph:
    """Return the graph whose ordered products read what an op makes of their factors."""
    graph = on_steps(partial(with_rounded_factors, rounding), graph)
    early = any((step := step_of(node.op)) and _rounds_whole(step) for node in graph)
    rounds = early or any(_rounds(graph, node) for node in graph)
    return _Rewriter(graph, rounding).graph() if rounds else graph


def _rounds(graph: Graph, node: Node) -> bool:
    """Return whether a node is a product that rounds its factors."""
    return bool(order_of(node.op)) and graph[node.inputs[0]].type.dtype == "float32"


class _Rewriter:
    """One traversal of the graph, which builds the new one."""

    def __init__(self, graph: Graph, rounding: ToBfloat16 | RoundBfloat16) -> None:
        self.old, self.b, self.rounding = graph, Builder.like(graph), rounding
        self.rounded: dict[str, Value] = {}
        """The rounded value of each value that has one."""

    def graph(self) -> Graph:
        """Return the graph whose products read rounded operands."""
        for node in self.old:
            if _rounds(self.old, node):
                for operand in node.inputs[:2]:
                    self._round(operand)
                factors = (self.rounded[operand].name for operand in node.inputs[:2])
                node = replace(node, inputs=(*factors, *node.inputs[2:]))
            elif (step := step_of(node.op)) is not None:
                node = self._loop(node, step)
            self.b.insert(node)
        self.b.take_roots(self.old, {})
        return self.b.graph().pruned()

    def _loop(self, node: Node, step: StepGraph) -> Node:
        """Return a loop that reads what its steps round, the same in each, rounded before."""
        given, early = dict(zip(step.inputs, node.inputs, strict=True)), _rounds_whole(step)
        for name, whole in early.items():
            self._round(given[whole])
            given[name] = self.rounded[given[whole]].name
        nodes = (_as_input(inner) if inner.name in early else inner for inner in step.nodes)
        made = replace(step, nodes=tuple(nodes), whole=(*step.whole, *early))
        inputs = tuple(given[name] for name in made.inputs)
        return replace(node, op=with_step(node.op, made), inputs=inputs) if early else node

    def _round(self, name: str) -> None:
        """Add the rounded value of a node, which is there already, unless it is known."""
        moved: list[Node] = []
        while name not in self.rounded and _only_moves(self.old, self.old[name]):
            moved.append(self.old[name])
            (name,) = self.old[name].inputs
        if name not in self.rounded:
            self._add(self.old[name])
        for node in reversed(moved):
            with self.b.at(node.locs):
                operand = self.rounded[node.inputs[0]]
                made = self.b.apply(node.op, operand, name=self._name(node.name))
                self.rounded[node.name] = made

    def _add(self, node: Node) -> None:
        """Add the rounded value of a node that does not only move one."""
        name, op = self._name(node.name), node.op
        with self.b.at(node.locs):
            if isinstance(op, Constant) and isinstance(self.rounding, ToBfloat16):
                data = narrow().rounded(op.array()).tobytes()
                op = replace(op, dtype="bfloat16", data=data, label=op.label and name)
                self.rounded[node.name] = self.b.apply(op, name=name)
            else:
                value = self.b.value(node.name)
                self.rounded[node.name] = self.b.apply(self.rounding, value, name=name)

    def _name(self, name: str) -> str:
        name = f"{name}.bf16"
        while name in self.old or name in self.b.nodes:
            name += "_"
        return name


def _rounds_whole(step: StepGraph) -> dict[str, str]:
    """Return the nodes of a step that round what is the same in each step, and what they round."""
    rounds = (node for node in step.nodes if isinstance(node.op, (ToBfloat16, RoundBfloat16)))
    return {node.name: node.inputs[0] for node in rounds if node.inputs[0] in step.whole}


def _as_input(node: Node) -> Node:
    """Return an input of a step in the place of a node."""
    return Node(node.name, Input(node.type.shape, node.type.dtype), (), node.type, node.locs)


def _only_moves(graph: Graph, node: Node) -> bool:
    """Return whether a node has the numbers of its operand in another place, and perhaps zeros."""
    if len(node.inputs) != 1 or node.op.is_control:
        return False
    x, op = graph[node.inputs[0]].type, node.op
    moves = op.alias or op.permutation is not None or op.box_start(x) is not None
    return moves and node.type.size(1) >= x.size(1)
