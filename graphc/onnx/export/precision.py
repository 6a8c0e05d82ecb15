"""Products that multiply in bfloat16, in a graph of layers: their factors are rounded before.

    h = affine(x, w, b)    ->    x.bf16 = round_bfloat16(x)
                                 w.bf16 = round_bfloat16(w)
                                 h = affine(x.bf16, w.bf16, b)

A layer with such products inside becomes the ops that it expands to, unless the factors of its
only product are its first two operands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.ir.build import Builder
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Layer, Op
from graphc.ir.tensor_type import TensorType
from graphc.ops.autodiff import Gradient
from graphc.ops.conv_layer import ConvLayer, ConvTransposeLayer
from graphc.ops.linalg import AffineLayer, OrderedProduct, order_of
from graphc.ops.rounding import RoundBfloat16
from graphc.ops.source import Input
from passes.round_products import with_rounded_factors
from passes.set_precision import Precision, SetPrecision
from passes.specialize import Specialize
from passes.steps import on_steps

SINGLE = AffineLayer, ConvLayer, ConvTransposeLayer
"""The layers that are one product of their first two operands."""


def with_precision(graph: Graph, patterns: Sequence[tuple[str, Precision]]) -> Graph:
    """Return a graph of layers whose products read factors that are rounded as patterns say."""
    if all(precision == "float32" for _, precision in patterns):
        return graph
    return _plain(with_rounded_factors(RoundBfloat16(), _SetOfLayers(tuple(patterns))(graph)))


def only_rounded(graph: Graph) -> set[str]:
    """Return the names of values that are read by roundings to bfloat16 alone."""
    roundings = {node.name for node in graph if isinstance(node.op, RoundBfloat16)}
    rounded = {graph[name].inputs[0] for name in roundings}
    others = {name for node in graph if node.name not in roundings for name in node.inputs}
    return rounded - others - set(graph.outputs.values())


@dataclass(frozen=True)
class _Ordered(OrderedProduct, base=True):
    """A layer that is one product, as one with an order of terms."""

    layer: Layer

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return self.layer.infer(ins)


class _SetOfLayers(SetPrecision):
    """The pass that gives products their order of terms, in layers that are not expanded yet."""

    def _ordered(self, graph: Graph, path: str) -> Graph:
        b = Builder.like(graph)
        for node in graph:
            if isinstance(node.op, Layer) and not isinstance(node.op, Gradient):
                self._add(b, node, node.op, path)
            else:
                b.insert(node)
        b.take_roots(graph, {})
        return super()._ordered(b.graph(), path)

    def _add(self, b: Builder, node: Node, layer: Layer, path: str) -> None:
        """Add a layer, or what it expands to if that has products to be ordered."""
        expansion, names = Specialize(train=False), dict.fromkeys(node.inputs)
        alone = expansion(Graph("layer", (*(_as_input(b.nodes[name]) for name in names), node)))
        if super()._ordered(alone, path) is alone:
            b.insert(node)
        elif isinstance(layer, SINGLE):
            b.insert(replace(node, op=_Ordered(layer, order="pairs")))
        else:
            expansion.expand(b, node, layer)


def _as_input(node: Node) -> Node:
    return replace(node, op=Input(node.type.shape, node.type.dtype), inputs=())


def _plain(graph: Graph) -> Graph:
    """Return the graph whose products have no order, since their factors are rounded."""
    graph = on_steps(_plain, graph)
    ordered = [node for node in graph if order_of(node.op)]
    return graph.replace({node.name: replace(node, op=_unordered(node.op)) for node in ordered})


def _unordered(op: Op) -> Op:
    if isinstance(op, _Ordered):
        return op.layer
    return replace(op, order=None) if isinstance(op, OrderedProduct) else op
