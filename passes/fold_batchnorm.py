"""Fold a batchnorm with fixed statistics into the affine map before it.

    a = affine(x, w, b)                     h = affine(x, w', b')
    h = normalize(a, m, v, g, s)      ->    w' = w * g / sqrt(v + eps)
                                            b' = (b - m) * g / sqrt(v + eps) + s

This is for frozen inference: weight, bias, statistics, gamma and beta must all be
constants, and the affine map read by the batchnorm alone.  A product without bias becomes an
affine map.  The new constants are computed in float64 and rounded once; they have labels, like
the frozen weights that they are made of.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphc.graph import Graph, Node
from graphc.op import Array
from graphc.ops.affine import Affine
from graphc.ops.linalg import MatMul
from graphc.ops.norm import Normalize
from graphc.ops.source import Constant, constant_op
from graphc.tensor_type import TensorType
from passes.pipeline import graph_pass


@graph_pass(preserves="reassociated")
def fold_batchnorm(graph: Graph) -> Graph:
    """The graph in which affine maps do the batchnorms behind them."""
    folded: dict[str, list[Node]] = {}
    for node in graph:
        if isinstance(node.op, Normalize):
            first = graph[node.inputs[0]]
            if _folds(graph, first, node):
                folded[first.name] = []
                folded[node.name] = _fold(graph, first, node, node.op.eps)
    if not folded:
        return graph
    return graph.with_nodes(made for node in graph for made in folded.get(node.name, [node]))


def _folds(graph: Graph, first: Node, node: Node) -> bool:
    plain = isinstance(first.op, Affine) or (first.op == MatMul() and first.type.rank == 2)
    fixed = (*first.inputs[1:], *node.inputs[1:])
    return (
        plain
        and graph.feeds_only(first.name, node.name)
        and graph[first.inputs[1]].type.rank == 2
        and all(isinstance(graph[name].op, Constant) for name in fixed)
    )


def _fold(graph: Graph, first: Node, node: Node, eps: float) -> list[Node]:
    """The new weight, the new bias, and the affine map that reads them."""
    average, variance, gamma, beta = (_wide(graph, name) for name in node.inputs[1:])
    scale = gamma / np.sqrt(variance + eps)
    bias = _wide(graph, first.inputs[2]) if len(first.inputs) == 3 else 0.0
    locs = tuple(dict.fromkeys((*first.locs, *node.locs)))
    made = [
        _constant(graph, f"{node.name}.folded_weight", _wide(graph, first.inputs[1]) * scale, node),
        _constant(graph, f"{node.name}.folded_bias", (bias - average) * scale + beta, node),
    ]
    inputs = (first.inputs[0], *(each.name for each in made))
    return [*made, Node(node.name, Affine(), inputs, node.type, locs)]


def _wide(graph: Graph, name: str) -> Array:
    op = graph[name].op
    assert isinstance(op, Constant)
    return op.array().astype(np.float64)


def _constant(graph: Graph, name: str, array: Array, node: Node) -> Node:
    while name in graph:
        name += "_"
    op = replace(constant_op(array.astype(node.type.dtype)), label=name)
    return Node(name, op, (), TensorType(op.shape, op.dtype), node.locs)
