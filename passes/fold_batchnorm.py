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
from typing import NamedTuple

import numpy as np

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.ops.conv import Conv
from graphc.ops.elementwise import Add
from graphc.ops.linalg import Affine, MatMul
from graphc.ops.norm import Normalize
from graphc.ops.shape import Reshape
from graphc.ops.source import Constant, constant_op
from passes.pipeline import graph_pass


@graph_pass(preserves="reassociated")
def fold_batchnorm(graph: Graph) -> Graph:
    """Return the graph in which affine maps and convolutions include the batchnorms after them."""
    folded: dict[str, list[Node]] = {}
    for node in graph:
        if isinstance(node.op, Normalize):
            first = graph[node.inputs[0]]
            images = _convolution(graph, node)
            if _folds(graph, first, node):
                folded[first.name] = []
                folded[node.name] = _fold(graph, first, node, node.op.eps)
            elif images is not None:
                folded.update((each.name, []) for each in images if each is not None)
                folded[node.name] = _fold_convolution(graph, images, node, node.op.eps)
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
        and all(graph[name].op.is_constant for name in fixed)
    )


class _Images(NamedTuple):
    """A convolution, its rows of pixels, and their sum with a bias if there is one."""

    conv: Node
    rows: Node
    sum: Node | None


def _convolution(graph: Graph, node: Node) -> _Images | None:
    """Return the convolution that a batchnorm can be folded into, or None."""
    last = graph[node.inputs[0]]
    total = last if isinstance(last.op, Add) else None
    rows = last if total is None else graph[total.inputs[0]]
    if not isinstance(rows.op, Reshape) or rows.type.rank != 2:
        return None
    conv = graph[rows.inputs[0]]
    users = [(conv, rows), (rows, node)] if total is None else []
    if total is not None:
        if graph[total.inputs[1]].type.rank != 1:
            return None
        users = [(conv, rows), (rows, total), (total, node)]
    fixed = (*conv.inputs[1:], *node.inputs[1:], *(total.inputs[1:] if total else ()))
    folds = (
        isinstance(conv.op, Conv)
        and all(graph.feeds_only(one.name, user.name) for one, user in users)
        and all(graph[name].op.is_constant for name in fixed)
    )
    return _Images(conv, rows, total) if folds else None


def _fold_convolution(graph: Graph, images: _Images, node: Node, eps: float) -> list[Node]:
    """Return the new filter and bias, the convolution, its rows and the sum."""
    conv, rows, total = images
    bias = _wide(graph, total.inputs[1]) if total else 0.0
    kernel, offset = _scaled(graph, conv, bias, node, eps)
    locs = tuple(dict.fromkeys((*conv.locs, *node.locs)))
    return [
        kernel,
        offset,
        Node(conv.name, conv.op, (conv.inputs[0], kernel.name), conv.type, locs),
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


def _fold(graph: Graph, first: Node, node: Node, eps: float) -> list[Node]:
    """Return the new weight, the new bias, and the affine map that reads them."""
    bias = _wide(graph, first.inputs[2]) if len(first.inputs) == 3 else 0.0
    weight, offset = _scaled(graph, first, bias, node, eps)
    locs = tuple(dict.fromkeys((*first.locs, *node.locs)))
    inputs = first.inputs[0], weight.name, offset.name
    return [weight, offset, Node(node.name, Affine(), inputs, node.type, locs)]


def _wide(graph: Graph, name: str) -> Array:
    op = graph[name].op
    assert isinstance(op, Constant)
    return op.array().astype(np.float64)


def _constant(graph: Graph, name: str, array: Array, node: Node) -> Node:
    while name in graph:
        name += "_"
    op = replace(constant_op(array.astype(node.type.dtype)), label=name)
    return Node(name, op, (), TensorType(op.shape, op.dtype), node.locs)
