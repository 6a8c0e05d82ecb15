"""Decide which products multiply in bfloat16: those of the layers that are chosen by name.

    h = affine(x, w, b)    ->    h = affine(x, w, b)  order="pairs"

A product with an order of terms rounds its factors, and multiplies bfloat16: in "bf16" the terms of
a sum are added in the order of pairs, in "bf16_blocks" in that of blocks.  All else stays float32:
parameters, sums, biases, normalisations, losses and the optimizer.

The pass runs before nodes are merged, folded or cut, while layers have their own names.  Gradients
have the order of the product that they are of, by its gradient rule.  A layer in the steps of a
loop is a part of the loop; so is one in a loop in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

from graphc.ir.bfloat16 import Order
from graphc.ir.graph import Graph, Node
from graphc.ir.step_graph import StepGraph
from graphc.ops.product import OrderedProduct
from graphc.ops.scan import Scan

Precision = Literal["bf16", "bf16_blocks", "float32"]
"""The precision of a layer's products."""
ORDERS: Mapping[Precision, Order | None] = {
    "bf16": "pairs",
    "bf16_blocks": "blocks",
    "float32": None,
}
"""The order of terms of each precision."""
_RESULT = re.compile(r"\.(steps|last)\d*$")
"""The end of the name of a loop's result, after that of the loop."""


@dataclass(frozen=True)
class SetPrecision:
    """The pass that gives products their order of terms; later patterns override those before."""

    name: ClassVar[str] = "set_precision"
    of_step: ClassVar[None] = None
    preserves: ClassVar[Literal["approximate"]] = "approximate"
    patterns: tuple[tuple[str, Precision], ...]
    """Patterns of layers' names, and the precision of the products of these layers."""
    bound: float | None = None

    def __call__(self, graph: Graph) -> Graph:
        """Return the graph whose chosen products have an order, also in the steps of loops."""
        return self._ordered(graph, "")

    def _ordered(self, graph: Graph, path: str) -> Graph:
        """Return a graph with ordered products; `path` is the start of its layers' names."""
        changed: dict[str, Node | None] = {}
        for node, op in products(graph):
            order = ORDERS[self.precision(path + layer_path(graph, node))]
            if order is not None:
                changed[node.name] = replace(node, op=replace(op, order=order))
        steps: dict[tuple[str, StepGraph], StepGraph] = {}
        for node in graph:
            if isinstance(node.op, Scan):
                key = path or f"{loop_path(graph, node)}.", node.op.step
                if key not in steps:
                    steps[key] = self._step(*key)
                if steps[key] is not node.op.step:
                    changed[node.name] = replace(node, op=replace(node.op, step=steps[key]))
        return graph.replace(changed) if changed else graph

    def _step(self, path: str, step: StepGraph) -> StepGraph:
        graph = step.graph(())
        made = self._ordered(graph, path)
        return step if made is graph else replace(step, nodes=tuple(made))

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
    """Return the name of the node that a node is a derivative of, or its own."""
    while node.origin in graph:
        node = graph[node.origin]
    return node.origin or node.name


def loop_path(graph: Graph, result: Node) -> str:
    """Return the name of the loop that a node is a result of, or the derivative of one."""
    return _RESULT.sub("", layer_path(graph, result))


def products(graph: Graph) -> Iterator[tuple[Node, OrderedProduct]]:
    """Yield the products of float32 that can be of bfloat16, with their ops."""
    for node in graph:
        types, op = [graph[name].type for name in node.inputs], node.op
        if not isinstance(op, OrderedProduct) or types[0].dtype != "float32":
            continue
        try:
            replace(op, order="pairs").infer(types)
        except ValueError:
            continue
        if op.product(types) is not None:
            yield node, op
