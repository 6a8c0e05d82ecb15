"""Fuse an affine map with the relu after it, and a gradient product with the relu mask after it.

    a = affine(x, w, b)      ->    h = affine_relu(x, w, b)
    h = relu(a)

    d_h = matmul(d_c, v)     ->    d_a = matmul_relu_grad(d_c, v, h)
    d_a = relu_grad(h, d_h)

The second node must be the only user of the first: otherwise the first is needed in memory
anyway.  The joined node takes the name and place of the second and the lines of both.
"""

from __future__ import annotations

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op, shared
from graphc.ops.fused import AffineRelu, MatMulReluGrad
from graphc.ops.linalg import Affine, MatMul
from graphc.ops.select import Relu, ReluGrad
from passes.contract import graph_pass


@graph_pass(preserves="bitwise")
def fuse_affine_relu(graph: Graph) -> Graph:
    """Return the graph with affine and relu fused, forward and backward."""
    changed: dict[str, Node | None] = {}
    for node in graph:
        joined = _join(graph, node) if isinstance(node.op, (Relu, ReluGrad)) else None
        if joined is None:
            continue
        first, op, inputs = joined
        if graph.feeds_only(first.name, node.name):
            locs = tuple(dict.fromkeys((*first.locs, *node.locs)))
            changed[first.name] = None
            changed[node.name] = Node(node.name, op, inputs, node.type, locs)
    return graph.replace(changed) if changed else graph


def _join(graph: Graph, node: Node) -> tuple[Node, Op, tuple[str, ...]] | None:
    """Return the node that may be fused with its user, and the op and operands of the result."""
    if isinstance(node.op, Relu):
        first = graph[node.inputs[0]]
        if isinstance(first.op, Affine):
            return first, shared(AffineRelu, order=first.op.order), first.inputs
    if isinstance(node.op, ReluGrad):
        out, dout = node.inputs
        first = graph[dout]
        if isinstance(first.op, MatMul) and out != dout:
            op = first.op
            fused = shared(MatMulReluGrad, op.trans_a, op.trans_b, order=op.order)
            return first, fused, (*first.inputs, out)
    return None
