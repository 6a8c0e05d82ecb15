"""Compute the weights of attention again in the backward part, rather than keep them.

    s = matmul(q, k.T)          s = matmul(q, k.T)
    p = softmax(s)              p = softmax(s)
    h = matmul(p, v)            h = matmul(p, v)
    ...                   ->    ...
    d_p = matmul(d_h, v.T)      d_p = matmul(d_h, v.T)
    d_v = matmul(p.T, d_h)      s.recomputed = matmul(q.late, k.T)
    d_s = ... p ... d_p         p.recomputed = softmax(s.recomputed)
                                d_v = matmul(p.recomputed.T, d_h)
                                d_s = ... p.recomputed ... d_p

There is a weight for each pair of positions: at 512 positions they are half of the memory of a
small GPT.  Without them all values between the products are private to a chain of kernels (see
graphc/kernels/chains.py), and a thread keeps one matrix of each: Dao et al. 2022
(arXiv:2205.14135), with whole rows in place of blocks of keys, so that no bit changes.
"""

from __future__ import annotations

from graphc.ir.graph import Graph, Node, boundary
from graphc.kernels.chains import has_large_matrices
from graphc.kernels.iteration_space import broadcast_kind
from graphc.ops.attention import CausalSoftmax
from graphc.ops.functions import Softmax
from graphc.ops.linalg import MatMul
from passes.contract import graph_pass
from passes.rematerialize import Rematerialize


@graph_pass(preserves="bitwise")
def recompute_attention(graph: Graph) -> Graph:
    """Return the graph with clones, or the graph as it was if no weights are large."""
    forward = {node.name for node in list(graph)[: boundary(graph, graph) + 1]}
    chosen: set[str] = set()
    for node in graph:
        if node.name in forward and _are_weights(graph, node, forward):
            origins = _origins(graph, node)
            if all(_is_aligned(graph, graph[name]) for name in origins):
                chosen |= origins
    return Rematerialize(frozenset(chosen))(graph) if chosen else graph


def _are_weights(graph: Graph, node: Node, forward: set[str]) -> bool:
    """Return whether a node is large weights that only products read in the forward part."""
    if not isinstance(node.op, (Softmax, CausalSoftmax)) or not has_large_matrices(node.type.shape):
        return False
    users = [graph[name] for name in graph.users[node.name]]
    early = [user for user in users if user.name in forward]
    products = all(isinstance(user.op, MatMul) for user in early)
    return products and len(early) < len(users) and node.name not in graph.roots


def _origins(graph: Graph, weights: Node) -> set[str]:
    """Return the weights, and the values as large that they are computed from."""
    found, stack = {weights.name}, list(weights.inputs)
    while stack:
        node = graph[stack.pop()]
        if node.type.shape == weights.type.shape and not node.op.is_source:
            found.add(node.name)
            stack += () if isinstance(node.op, MatMul) else node.inputs
    return found


def _is_aligned(graph: Graph, node: Node) -> bool:
    """Return whether a node is a product, or a kernel of one matrix can read what it reads.

    That kernel cannot if, say, a mask of the keys repeats over heads.
    """
    shapes = (graph[name].type.shape for name in node.inputs)
    lead = node.type.rank - 1
    kinds = (broadcast_kind(shape, node.type.shape, lead) for shape in shapes)
    return isinstance(node.op, MatMul) or None not in kinds
