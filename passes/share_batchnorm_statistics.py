"""Let batchnorm read the statistics that the running averages need anyway.

    m = mean(x)                             m = mean(x)
    v = mean(power(x - m, 2))               v = mean(power(x - m, 2))
    h = batchnorm_train(x, g, b)      ->    h = normalize(x, m, v, g, b)

    d_x = batchnorm_dx(x, g, d_h)           d_g = normalize_dgamma(x, m, v, d_h)
    d_g = batchnorm_dgamma(x, d_h)    ->    d_b = sum(d_h)
    d_b = sum(d_h)                          d_x = normalize_dx(x, m, v, g, d_h, d_g, d_b)

Before this pass batchnorm_train computes the statistics itself, so that its gradient includes
theirs.  It stays as it is if no mean and variance of x come before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from graphc.ir.graph import Graph, Node
from graphc.ops.elementwise import Power, Sub
from graphc.ops.fused_norm import NormalizeDgamma, NormalizeDx
from graphc.ops.norm import (
    BatchNormDgamma,
    BatchNormDx,
    BatchNormTrain,
    Normalize,
    feature_axes,
)
from graphc.ops.reduce import Mean
from graphc.ops.shape import Reshape
from graphc.ops.sums import Sum
from passes.contract import graph_pass


class Statistics(NamedTuple):
    """The nodes that are the mean and the variance of a value's features."""

    mean: str
    var: str


@graph_pass(preserves="reassociated")
def share_batchnorm_statistics(graph: Graph) -> Graph:
    """Return the graph in which batchnorm and its gradients read the batch's mean and variance."""
    kinds = BatchNormTrain, BatchNormDx, BatchNormDgamma
    if not any(isinstance(node.op, kinds) for node in graph):
        return graph
    sharing = _Sharing(graph)
    nodes = list(sharing.nodes())
    return graph.with_nodes(nodes) if sharing.changed else graph


class _Sharing:
    """One traversal of the graph: it records statistics, and lets later nodes read them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.statistics: dict[str, Statistics] = {}
        self.dgammas: dict[tuple[str, str, float], Node] = {}
        self.dbetas: dict[str, Node] = {}
        self.done: set[str] = set()
        self.changed = False
        for node in graph:
            if isinstance(node.op, BatchNormDgamma):
                self.dgammas[node.inputs[0], node.inputs[1], node.op.eps] = node
            elif isinstance(node.op, Sum) and _over_features(graph, node, node.op):
                self.dbetas.setdefault(node.inputs[0], node)

    def nodes(self) -> Iterator[Node]:
        """Yield the nodes of the new graph in order."""
        for node in self.graph:
            if node.name not in self.done:
                made = list(self._rewrite(node))
                self.changed = self.changed or made != [node]
                self.done.update(each.name for each in made)
                yield from made

    def _rewrite(self, node: Node) -> Iterator[Node]:
        self._note(node)
        found = self.statistics.get(node.inputs[0]) if node.inputs else None
        op = node.op
        if found is None:
            yield node
        elif isinstance(op, BatchNormTrain):
            x, gamma, beta = node.inputs
            inputs = (x, *found, gamma, beta)
            yield Node(node.name, Normalize(op.eps), inputs, node.type, node.locs)
        elif isinstance(op, BatchNormDgamma):
            yield _dgamma(node, node.name, found, op.eps)
        elif isinstance(op, BatchNormDx):
            yield from self._rewrite_dx(node, found, op.eps)
        else:
            yield node

    def _rewrite_dx(self, node: Node, found: Statistics, eps: float) -> Iterator[Node]:
        x, gamma, dout = node.inputs
        known = self.dgammas.get((x, dout, eps))
        dgamma = _dgamma(node, known.name if known else f"{node.name}.dgamma", found, eps)
        dbeta = self.dbetas.get(dout) or self._sum(node, dout)
        yield from (each for each in (dgamma, dbeta) if each.name not in self.done)
        inputs = (x, *found, gamma, dout, dgamma.name, dbeta.name)
        yield Node(node.name, NormalizeDx(eps), inputs, node.type, node.locs)

    def _sum(self, node: Node, dout: str) -> Node:
        op = Sum(feature_axes(node.type.rank))
        made = Node(f"{node.name}.dbeta", op, (dout,), op.infer([node.type]), node.locs)
        self.dbetas[dout] = made
        return made

    def _note(self, node: Node) -> None:
        """Record a node that is a variance: mean(power(sub(x, mean(x)), 2))."""
        graph = self.graph
        if not (isinstance(node.op, Mean) and _over_features(graph, node, node.op)):
            return
        square = graph[node.inputs[0]]
        if not (isinstance(square.op, Power) and square.op.exponent == 2):
            return
        centred = graph[square.inputs[0]]
        if not isinstance(centred.op, Sub):
            return
        x, spread = centred.inputs
        average = graph[spread]
        if isinstance(average.op, Reshape):
            average = graph[average.inputs[0]]
        if average.op == node.op and average.inputs == (x,):
            self.statistics.setdefault(x, Statistics(average.name, node.name))


def _dgamma(node: Node, name: str, found: Statistics, eps: float) -> Node:
    x, dout = node.inputs[0], node.inputs[-1]
    type = node.type.with_shape((node.type.shape[1 if node.type.rank > 1 else 0],))
    return Node(name, NormalizeDgamma(eps), (x, *found, dout), type, node.locs)


def _over_features(graph: Graph, node: Node, op: Mean | Sum) -> bool:
    rank = graph[node.inputs[0]].type.rank
    return rank > 1 and op.axes == feature_axes(rank) and not op.keepdims
