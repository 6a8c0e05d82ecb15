"""Multiply in bfloat16 what the layers of such a precision multiply; sums stay float32.

    h = affine(x, w, b)    ->    x.bf16 = to_bfloat16(x)
                                 w.bf16 = to_bfloat16(w)
                                 h = affine(x.bf16, w.bf16, b)       bfloat16 x bfloat16 = float32

Each operand is rounded once, for all its products; one that is only moved on its way there is
rounded before.  Constant weights are stored rounded, which halves their bytes.  All else stays
float32: parameters, sums, biases, normalisations, losses and the optimizer.  With "bf16_blocks"
the terms of a sum are added in the order of blocks, else in that of pairs.

A gradient belongs to the layer that it is of.  A layer in the steps of a loop is a part of the
loop; so is one in a loop in it, or in the loop over a segment that a pass makes.  The pass runs
once gradients and updates are there, since no gradient flows through rounding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

from graphc.ir.bfloat16 import Order, rounded
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op
from graphc.ir.step_graph import StepGraph
from graphc.ops.arithmetic import ToBfloat16
from graphc.ops.conv import Conv, ConvDw, ConvDx
from graphc.ops.linalg import MatrixProduct
from graphc.ops.scan import Scan
from graphc.ops.source import Constant, Input
from passes.steps import each_step

Precision = Literal["bf16", "bf16_blocks", "float32"]
"""The precision of a layer's products."""
PRECISION_OF: Mapping[Order, Precision] = {"pairs": "bf16", "blocks": "bf16_blocks"}
"""The precision whose products add terms in an order."""
ORDERED = (MatrixProduct, Conv, ConvDx, ConvDw)
"""The products that have an order of terms."""
_RESULT = re.compile(r"\.(steps|last)\d*(\..*)?$")
"""The end of the name of a loop's result, after that of the loop, and the endings of passes."""


@dataclass(frozen=True)
class RoundProducts:
    """The pass that rounds the factors of products; later patterns override those before."""

    name: ClassVar[str] = "round_products"
    of_step: ClassVar[None] = None
    preserves: ClassVar[Literal["approximate"]] = "approximate"
    patterns: tuple[tuple[str, Precision], ...]
    """Patterns of layers' names, and the precision of the products of these layers."""
    bound: float | None = None

    def __call__(self, graph: Graph) -> Graph:
        """Return the graph whose chosen products multiply bfloat16, also in the steps of loops."""
        return self._rounded(graph, "")

    def _rounded(self, graph: Graph, path: str) -> Graph:
        """Return a graph with rounded factors; `path` is the start of its layers' names."""

        def run(loop: Node, step: Graph) -> Graph:
            return self._rounded(step, path or f"{loop_path(graph, loop)}.")

        found = {n.name: self.precision(path + layer_path(graph, n)) for n in products(graph)}
        chosen = {name: to for name, to in found.items() if to != "float32"}
        graph = each_step(run, graph)
        loops = {
            node.name for node in graph if isinstance(node.op, Scan) and _rounds_whole(node.op.step)
        }
        return _Rewriter(graph, chosen).graph() if chosen or loops else graph

    def precision(self, layer: str) -> Precision:
        """Return the precision of the products of a layer."""
        found: list[Precision] = [to for pattern, to in self.patterns if matches(layer, pattern)]
        return found[-1] if found else "float32"


def matches(layer: str, pattern: str) -> bool:
    """Return whether a layer, or one that it is a part of, has a name of that pattern."""
    while layer and not fnmatchcase(layer, pattern):
        layer = layer.rpartition(".")[0]
    return bool(layer)


def layer_path(graph: Graph, node: Node) -> str:
    """Return the name of the node that a node is a gradient or a part of, or its own."""
    while node.origin in graph:
        node = graph[node.origin]
    return node.origin or node.name


def loop_path(graph: Graph, result: Node) -> str:
    """Return the name of the loop that a node is a result of, or the gradient of one."""
    return _RESULT.sub("", layer_path(graph, result))


def products(graph: Graph) -> Iterator[Node]:
    """Yield the products of float32 that can be of bfloat16."""
    for node in graph:
        types = [graph[name].type for name in node.inputs]
        if node.op.product(types) is None or {x.dtype for x in types[:2]} != {"float32"}:
            continue
        factors = (x.with_dtype("bfloat16") for x in types[:2])
        try:
            result = node.op.infer([*factors, *types[2:]])
        except ValueError:
            continue
        if result == node.type:
            yield node


class _Rewriter:
    """One traversal of the graph, which builds the new one."""

    def __init__(self, graph: Graph, chosen: Mapping[str, Precision]) -> None:
        self.old, self.chosen, self.b = graph, chosen, Builder.like(graph)
        self.rounded: dict[str, Value] = {}
        """The rounded value of each value that has one."""

    def graph(self) -> Graph:
        """Return the graph whose chosen products read rounded operands."""
        for node in self.old:
            if node.name in self.chosen:
                for operand in node.inputs[:2]:
                    self._round(operand)
                factors = (self.rounded[operand].name for operand in node.inputs[:2])
                op = _ordered(node.op, self.chosen[node.name])
                node = replace(node, op=op, inputs=(*factors, *node.inputs[2:]))
            elif isinstance(node.op, Scan):
                node = self._loop(node, node.op)
            self.b.insert(node)
        self.b.take_roots(self.old, {})
        return self.b.graph().pruned()

    def _loop(self, node: Node, op: Scan) -> Node:
        """Return a loop that reads what its steps round, the same in each, rounded before."""
        step, given = op.step, dict(zip(op.step.inputs, node.inputs, strict=True))
        early = _rounds_whole(op.step)
        for name, whole in early.items():
            self._round(given[whole])
            given[name] = self.rounded[given[whole]].name
        nodes = (_as_input(inner) if inner.name in early else inner for inner in step.nodes)
        made = replace(step, nodes=tuple(nodes), whole=(*step.whole, *early))
        inputs = tuple(given[name] for name in made.inputs)
        return replace(node, op=replace(op, step=made), inputs=inputs) if early else node

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
            if isinstance(op, Constant):
                data = rounded(op.array()).tobytes()
                op = replace(op, dtype="bfloat16", data=data, label=op.label and name)
                self.rounded[node.name] = self.b.apply(op, name=name)
            else:
                value = self.b.value(node.name)
                self.rounded[node.name] = self.b.apply(ToBfloat16(), value, name=name)

    def _name(self, name: str) -> str:
        name = f"{name}.bf16"
        while name in self.old or name in self.b.nodes:
            name += "_"
        return name


def _ordered(op: Op, precision: Precision) -> Op:
    """Return a product that adds its terms in the order of a precision."""
    if precision == "bf16_blocks" and isinstance(op, ORDERED):
        return replace(op, order="blocks")
    return op


def _rounds_whole(step: StepGraph) -> dict[str, str]:
    """Return the nodes of a step that round what is the same in each step, and what they round."""
    rounds = (node for node in step.nodes if isinstance(node.op, ToBfloat16))
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


def factors(before: Graph, made: Graph) -> set[str]:
    """Return the operands that the pass rounded, and all loops, in whose steps some may be."""
    rounds = (n for n in made if any(made[x].type.dtype == "bfloat16" for x in n.inputs[:2]))
    found = {x for node in rounds if node.name in before for x in before[node.name].inputs[:2]}
    return found | {node.name for node in before if isinstance(node.op, Scan)}
