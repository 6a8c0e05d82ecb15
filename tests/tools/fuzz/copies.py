"""What a step that is cut into shards means, as one graph: a copy of the net for the rows of each.

    x: [5, 3]                        x: [5, 3]
    w: [3, 2]                        w: [3, 2]
    h: [5, 2] = matmul(x, w)         x@0: [3, 3] = x[:3]             x@1: [2, 3] = x[3:]
    loss = mean(h)             ->    h@0: [3, 2] = matmul(x@0, w)    h@1: [2, 2] = matmul(x@1, w)
                                     loss@0 = mean(h@0)              loss@1 = mean(h@1)
                                     loss = 3/5 * loss@0 + 2/5 * loss@1

Nothing here knows of shards: gradients and updates are those of a plain graph.  Masks are parts
of the whole batch's, and so are the statistics of batch normalisation where they are synchronised.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

import numpy as np

from graphc.compiler.loss_share import ROWS, SUM
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op
from graphc.ir.tensor_type import Batch, TensorType, shape_at
from graphc.ops.elementwise import add, mul
from graphc.ops.norm import BatchNormTrain
from graphc.ops.random_numbers import Drawn
from graphc.ops.slicing import Concat, Slice
from graphc.ops.source import Constant, Input, Parameter, State, constant

STATISTICS = (".mean", ".var")


def of_shards(
    graph: Graph,
    n: int,
    shards: int,
    synchronise: bool,
    counted: Sequence[tuple[str, str]],
    divisors: Collection[str],
) -> Graph:
    """A graph of ops, for `n` rows; each loss counts by rows or is a sum (compiler/loss_share.py).

    What weighted means are divided by is that of all shards, by the rows of each.  Outputs that
    are no losses are those of the last shard.
    """
    return _Copies(graph, n, shards, synchronise, divisors).made(counted)


class _Copies:
    def __init__(
        self, graph: Graph, n: int, shards: int, synchronise: bool, divisors: Collection[str]
    ) -> None:
        self.graph, self.n, self.divisors = graph, n, divisors
        sizes = [len(part) for part in np.array_split(np.arange(n), shards) if len(part)]
        self.parts = list(pairwise([0, *np.cumsum(sizes).tolist()]))
        norms = {x.name for x in graph if synchronise and isinstance(x.op, BatchNormTrain)}
        self.together = {*norms, *(name + each for name in norms for each in STATISTICS)}
        """What sees the rows of all shards."""
        self.b = Builder.like(graph)
        self.b.scope = "@"
        self.copies: dict[str, list[str]] = {}
        """By the name of a node, that for each shard."""

    def made(self, counted: Sequence[tuple[str, str]]) -> Graph:
        for node in self.graph:
            self._copy(node)
        b, graph = self.b, self.graph
        fed = [n.name for n in graph if isinstance(n.op, Input)]
        of_rows = graph.downstream(fed)
        for state, value in graph.updates.items():
            found = self._values(value)
            average = value in of_rows and found[0].type.is_float
            b.updates[state] = (self._total(found, ROWS) if average else found[0]).name
        b.outputs.update({k: self.copies[v][-1] for k, v in graph.outputs.items()})
        for loss, kind in counted:
            b.outputs[loss] = self._total(self._values(graph.outputs[loss]), kind).name
        b.losses = list(graph.losses)
        return b.graph()

    def _copy(self, node: Node) -> None:
        if isinstance(node.op, (Input, Parameter, State, Constant, Drawn)):
            whole = self._at(node, node.name, self.n, node.inputs)
            self.copies[node.name] = self._cut(node.type, whole)
        elif node.name in self.together:
            inputs = [self._joined(name) for name in node.inputs]
            whole = self._at(node, node.name, self.n, inputs)
            self.copies[node.name] = self._cut(node.type, whole)
        else:
            self.copies[node.name] = [
                self._at(
                    node,
                    f"{node.name}@{i}",
                    stop - start,
                    [self.copies[name][i] for name in node.inputs],
                ).name
                for i, (start, stop) in enumerate(self.parts)
            ]
        if node.name in self.divisors:
            total = self._total(self._values(node.name), SUM)
            shares = [self._share(i, node.type.dtype) for i in range(len(self.parts))]
            self.copies[node.name] = [mul(total, share).name for share in shares]

    def _at(self, node: Node, name: str, rows: int, inputs: Sequence[str]) -> Value:
        op: Op = node.op.at(rows)
        type = TensorType(shape_at(node.type.shape, rows), node.type.dtype)
        return self.b.insert(Node(name, op, tuple(inputs), type, node.locs))

    def _cut(self, declared: TensorType, whole: Value) -> list[str]:
        """The rows of each shard; all of what has no rows."""
        for axis, dim in enumerate(declared.shape):
            if isinstance(dim, Batch):
                cuts = [(axis, dim.factor * i, dim.factor * j, 1) for i, j in self.parts]
                parts = [self.b.apply(Slice((cut,)), whole) for cut in cuts]
                return [part.name for part in parts]
        return [whole.name] * len(self.parts)

    def _joined(self, name: str) -> str:
        """The rows of all shards again; what has none is the same on each."""
        found = self._values(name)
        for axis, dim in enumerate(self.graph[name].type.shape):
            if isinstance(dim, Batch):
                return self.b.apply(Concat(axis), *found).name
        assert len(set(self.copies[name])) == 1, f"{name} differs among shards"
        return found[0].name

    def _values(self, name: str) -> list[Value]:
        return [self.b.value(copy) for copy in self.copies[name]]

    def _total(self, values: Sequence[Value], kind: str) -> Value:
        """The sum over shards, each by its share of the batch."""
        parts = values
        if kind != SUM:
            shares = [self._share(i, values[0].dtype) for i in range(len(values))]
            parts = [mul(value, share) for value, share in zip(values, shares, strict=True)]
        total = parts[0]
        for part in parts[1:]:
            total = add(total, part)
        return total

    def _share(self, shard: int, dtype: str) -> Value:
        start, stop = self.parts[shard]
        return constant(self.b, (stop - start) / self.n, dtype)
