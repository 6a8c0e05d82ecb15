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
from functools import partial
from typing import ClassVar, Literal

from graphc.ir.forms import Product, TermOrder
from graphc.ir.graph import Graph, Node, joint_results
from graphc.ops.linalg import OrderedProduct

Precision = Literal["bf16", "bf16_blocks", "float32"]
"""The precision of a layer's products."""
ORDERS: Mapping[Precision, TermOrder | None] = {
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
        for layer, node, op, _ in products(graph, path):
            order = ORDERS[self.precision(layer)]
            if order is not None:
                changed[node.name] = replace(node, op=replace(op, order=order))
        for nodes in joint_results(graph):
            ordered = partial(self._ordered, path=inner_path(nodes[0], path))
            changed.update(nodes[0].op.with_inside(nodes, ordered))
        return graph.replace(changed) if changed else graph

    def precision(self, layer: str) -> Precision:
        """Return the precision of the products of a layer."""
        found: list[Precision] = [to for pattern, to in self.patterns if matches(layer, pattern)]
        return found[-1] if found else "float32"


def matches(layer: str, pattern: str) -> bool:
    """Return whether a layer, or one that it is a part of, has a name of that pattern."""
    while layer and not fnmatchcase(layer, pattern):
        layer = layer.rpartition(".")[0]
    return bool(layer)


def products(graph: Graph, path: str) -> Iterator[tuple[str, Node, OrderedProduct, Product]]:
    """Yield the products of float32 that can be of bfloat16: layer, node, op and form of each.

    `path` is the start of the layers' names: in a step that of the loop.
    """
    for node in graph:
        types, op = [graph[name].type for name in node.inputs], node.op
        if not isinstance(op, OrderedProduct) or types[0].dtype != "float32":
            continue
        try:
            replace(op, order="pairs").infer(types)
        except ValueError:
            continue
        form = op.product(types)
        if form is not None:
            yield path + (node.origin or node.name), node, op, form


def inner_path(result: Node, path: str) -> str:
    """Return the start of layers' names in a loop's step; `path` is that in the loop's graph."""
    return path or _RESULT.sub("", result.origin or result.name) + "."
