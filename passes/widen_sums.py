"""Give sums over the rows of a narrow matrix more columns, which threads share.

    s = sum(x)                s.reshape_1 = reshape(x, (k/r*N, r*c))
    x: (k*N, c)         ->    s.sum_1 = sum(s.reshape_1)
                              s.reshape_2 = reshape(s.sum_1, (r, c))
                              s = sum(s.reshape_2)

A kernel that sums over rows has one accumulator for each column, and threads share blocks of 64
columns.  The pixels of a batch are many rows of few columns, their channels: one thread would add
them all, and often wait for the addition before.  Here row i is added to sum i modulo r, and then
these are added.  Nothing is copied.

Ops on elements whose results are only summed move with the sum, so that the same kernel computes
them.  Their operands of one number for each column are repeated r times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import Batch, TensorType, count, divided
from graphc.kernels.iteration_space import is_number
from graphc.ops.elementwise import Elementwise, add, div, mul, sub
from graphc.ops.functions import sqrt
from graphc.ops.fused_norm import NormalizeDgamma
from graphc.ops.reduce import Mean
from graphc.ops.shape import reshape
from graphc.ops.sums import Sum, broadcast_to
from passes.contract import graph_pass

BLOCK = 64
"""The columns of a block: a matrix that has no more is narrow."""
WIDTH = 512
"""The most columns that it gets."""
MANY = 64
"""The fewest rows of an image: sums over fewer are not worth a second kernel."""


@graph_pass(preserves="reassociated")
def widen_sums(graph: Graph) -> Graph:
    """Return the graph in which sums over many rows of few columns have more columns."""
    sums = {node.name for node in graph if _is_narrow_sum(graph, node)}
    if not sums:
        return graph
    return graph.with_nodes(list(_Widening(graph, sums).nodes()))


def _is_narrow_sum(graph: Graph, node: Node) -> bool:
    """Return whether a node sums over the rows of a narrow matrix."""
    op = node.op
    sums = isinstance(op, Sum | Mean) and op.axes == (0,) and not op.keepdims
    sums = sums or isinstance(op, NormalizeDgamma)
    return sums and lines_of(graph[node.inputs[0]].type) > 1


def lines_of(x: TensorType) -> int:
    """Return how many rows of a matrix become one; 1 if it is not narrow, or has few rows."""
    if x.rank != 2 or not x.is_float:
        return 1
    rows, columns = x.shape
    if not isinstance(rows, Batch) or not isinstance(columns, int):
        return 1
    if rows.factor < MANY or not 0 < columns <= BLOCK:
        return 1
    return max(r for r in range(1, WIDTH // columns + 1) if rows.factor % r == 0)


def _summed_only(graph: Graph, sums: set[str]) -> set[str]:
    """Return the nodes on elements that only these sums, and such nodes, read."""
    found: set[str] = set()
    for node in reversed(list(graph)):
        users = graph.users[node.name]
        summed = users and all(user in found or user in sums for user in users)
        if summed and node.name not in graph.roots and _moves(graph, node):
            found.add(node.name)
    return found


def _moves(graph: Graph, node: Node) -> bool:
    """Return whether a node computes the elements of a narrow matrix, from it and its columns."""
    if not isinstance(node.op, Elementwise) or lines_of(node.type) == 1:
        return False
    return all(_fits(graph[name].type, node.type) for name in node.inputs)


def _fits(x: TensorType, matrix: TensorType) -> bool:
    columns = matrix.shape[1:]
    return x.shape in (matrix.shape, columns, (1, *columns)) or is_number(x)


class _Widening:
    """One traversal of the graph, in which the narrow `sums` get more columns."""

    def __init__(self, graph: Graph, sums: set[str]) -> None:
        self.graph, self.sums, self.moved = graph, sums, _summed_only(graph, sums)
        self.b = Builder.extending(graph)
        self.wide: dict[str, Value] = {}
        """The matrices with more columns, by name."""
        self.repeated: dict[tuple[str, int], Value] = {}
        """The vectors repeated so many times."""
        self.late: dict[str, list[Node]] = {}
        """The last nodes of sums, which wait so that one kernel computes several wide sums."""

    def nodes(self) -> Iterator[Node]:
        """Yield the nodes of the new graph in order."""
        for node in self.graph:
            changes = node.name in self.sums or node.name in self.moved
            if not (changes and self.late.keys().isdisjoint(node.inputs)):
                yield from self._waiting()
            if changes:
                yield from self._changed(node)
            else:
                yield node
        yield from self._waiting()

    def _waiting(self) -> Iterator[Node]:
        late, self.late = self.late, {}
        for nodes in late.values():
            yield from nodes

    def _changed(self, node: Node) -> Iterator[Node]:
        """Yield the first nodes that replace a sum, or a node that moves with one."""
        before, self.b.scope = len(self.b.nodes), f"{node.name}."
        with self.b.at(node.locs):
            total = self._sum(node) if node.name in self.sums else None
            if total is None:
                ins = [self._operand(name, node.type) for name in node.inputs]
                self.wide[node.name] = self.b.apply(node.op, *ins)
        made = list(islice(self.b.nodes.values(), before, None))
        if total is None:
            yield from made
            return
        first = made.index(total.node) + 1
        yield from made[:first]
        last = made[-1]
        del self.b.nodes[last.name]
        self.late[node.name] = [*made[first:-1], replace(last, name=node.name)]

    def _sum(self, node: Node) -> Value:
        """Build a sum over rows, and return the wide one that it begins with."""
        if isinstance(node.op, Sum | Mean):
            return self._reduced(node.op, self._widened(node.inputs[0]), node.type)[0]
        assert isinstance(node.op, NormalizeDgamma), "the others are Sum and Mean"
        x, average, variance, dout = node.inputs
        centred = sub(self._widened(x), self._repeated(average, self.graph[x].type))
        wide, total = self._reduced(Sum((0,)), mul(self._widened(dout), centred), node.type)
        div(total, sqrt(add(self.b.value(variance), node.op.eps)))
        return wide

    def _reduced(self, op: Sum | Mean, wide: Value, result: TensorType) -> tuple[Value, Value]:
        """Build the sums of a wide matrix's columns, and those of the narrow matrix's."""
        sums = self.b.apply(op, wide)
        return sums, self.b.apply(op, reshape(sums, (-1, *result.shape)))

    def _operand(self, name: str, matrix: TensorType) -> Value:
        """Return what an operand of a node on the elements of a matrix is for the wide one."""
        x = self.graph[name].type
        if x.shape == matrix.shape:
            return self._widened(name)
        return self.b.value(name) if is_number(x) else self._repeated(name, matrix)

    def _widened(self, name: str) -> Value:
        """Return a narrow matrix with more columns."""
        found = self.wide.get(name)
        if found is None:
            x = self.b.value(name)
            rows, columns = x.shape
            r = lines_of(x.type)
            wide = divided(rows, r), count((columns, r))
            found = self.wide[name] = reshape(x, wide)
        return found

    def _repeated(self, name: str, matrix: TensorType) -> Value:
        """Return a number for each column, repeated for the columns of the wide matrix."""
        key = name, lines_of(matrix)
        found = self.repeated.get(key)
        if found is None:
            columns = matrix.shape[1]
            lines = broadcast_to(reshape(self.b.value(name), (1, columns)), (key[1], columns))
            found = self.repeated[key] = reshape(lines, (-1,))
        return found
