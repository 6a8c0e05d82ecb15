"""Fold a batchnorm with fixed statistics into the affine map or convolution before it.

    a = affine(x, w, b)                     h = affine(x, w', b')
    h = normalize(a, m, v, g, s)      ->    w' = w * g / sqrt(v + eps)
                                            b' = (b - m) * g / sqrt(v + eps) + s

    p = reshape(conv(x, w), ...)            p = reshape(conv(x, w'), ...)
    h = normalize(p + b, m, v, g, s)  ->    h = p + b'

This is for frozen inference: weight, bias, statistics, gamma and beta must all be
constants, and the batchnorm must be the only user of the affine map or convolution.  A product
without bias becomes an affine map, and a convolution without bias gets one.  The new constants
are computed in float64 and rounded once; they have labels, like the frozen weights that they are
computed from.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.ops.conv import Conv
from graphc.ops.elementwise import Add
from graphc.ops.linalg import Affine, MatMul, order_of
from graphc.ops.norm import Normalize
from graphc.ops.shape import Reshape
from graphc.ops.source import Constant, constant_op
from passes.contract import graph_pass


@graph_pass(preserves="reassociated")
def fold_batchnorm(graph: Graph) -> Graph:
    """Return the graph in which affine maps and convolutions include the batchnorms after them."""
    folded: dict[str, list[Node]] = {}
    for node in graph:
        if isinstance(node.op, Normalize):
            found = _match(graph, node)
            if found is not None and _folds(graph, found, node):
                folded.update((each.name, []) for each in (found.first, *found.between))
                folded[node.name] = _fold(graph, found, node, node.op.eps)
    if not folded:
        return graph
    return graph.with_nodes(made for node in graph for made in folded.get(node.name, [node]))


class _Match(NamedTuple):
    """An affine map or a convolution, and the nodes from it to a batchnorm."""

    first: Node
    between: tuple[Node, ...]
    """The rows of pixels of a convolution, and their sum with a bias if there is one."""
    bias: str | None


def _match(graph: Graph, node: Node) -> _Match | None:
    """Return the affine map or convolution before a batchnorm, or None if there is neither."""
    last = graph[node.inputs[0]]
    plain = last.op == MatMul(order=order_of(last.op)) and last.type.rank == 2
    if plain or isinstance(last.op, Affine):
        bias = last.inputs[2] if len(last.inputs) == 3 else None
        return _Match(last, (), bias) if graph[last.inputs[1]].type.rank == 2 else None
    added = isinstance(last.op, Add) and graph[last.inputs[1]].type.rank == 1
    rows, bias = (graph[last.inputs[0]], last.inputs[1]) if added else (last, None)
    if not isinstance(rows.op, Reshape) or rows.type.rank != 2:
        return None
    first, between = graph[rows.inputs[0]], (rows, last) if added else (rows,)
    return _Match(first, between, bias) if isinstance(first.op, Conv) else None


def _folds(graph: Graph, found: _Match, node: Node) -> bool:
    """Return whether the folded values are constants, and nothing else reads the nodes replaced."""
    fixed = {found.first.inputs[1], *node.inputs[1:]} | ({found.bias} if found.bias else set())
    return all(graph[name].op.is_constant for name in fixed) and all(
        graph.feeds_only(one.name, user.name)
        for one, user in pairwise((found.first, *found.between, node))
    )


def _fold(graph: Graph, found: _Match, node: Node, eps: float) -> list[Node]:
    """Return the new weight and bias, and the nodes that read them."""
    first, between, _ = found
    bias = _wide(graph, found.bias) if found.bias else 0.0
    weight, offset = _scaled(graph, first, bias, node, eps)
    locs = tuple(dict.fromkeys((*first.locs, *node.locs)))
    if not between:
        inputs = first.inputs[0], weight.name, offset.name
        op = Affine(order=order_of(first.op))
        return [weight, offset, Node(node.name, op, inputs, node.type, locs)]
    rows = between[0]
    return [
        weight,
        offset,
        Node(first.name, first.op, (first.inputs[0], weight.name), first.type, locs),
        rows,
        Node(node.name, Add(), (rows.name, offset.name), node.type, locs),
    ]


def _scaled(
    graph: Graph, first: Node, bias: Array | float, node: Node, eps: float
) -> tuple[Node, Node]:
    """Return the new weight and the new bias."""
    average, variance, gamma, beta = (_wide(graph, name) for name in node.inputs[1:])
    scale = gamma / np.sqrt(variance + eps)
    weight = _wide(graph, first.inputs[1]) * scale
    return (
        _constant(graph, f"{node.name}.folded_weight", weight, node),
        _constant(graph, f"{node.name}.folded_bias", (bias - average) * scale + beta, node),
    )


def _wide(graph: Graph, name: str) -> Array:
    op = graph[name].op
    assert isinstance(op, Constant)
    return op.array().astype(np.float64)


def _constant(graph: Graph, name: str, array: Array, node: Node) -> Node:
    while name in graph:
        name += "_"
    op = replace(constant_op(array.astype(node.type.dtype)), label=name)
    return Node(name, op, (), TensorType(op.shape, op.dtype), node.locs)
