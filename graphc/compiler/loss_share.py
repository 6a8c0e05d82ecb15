"""The combination of the losses of parts of a batch to the loss of the batch.

    mean over rows                 each by its share of the rows
    mean weighted by row or class  each by its share of the mean's divisor
    sum over rows                  added up

Functions of a reduction count as it does if they are linear: twice a mean is a mean.  Others, such
as the root of a mean, count by rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from graphc.base.errors import GraphError
from graphc.ir.graph import Graph, Node
from graphc.ir.interpreter import by_reference, interpret
from graphc.ir.op import Array
from graphc.ops.elementwise import Div, Mul
from graphc.ops.linalg import MatMul
from graphc.ops.losses.base import RowLoss
from graphc.ops.shape import Reshape
from graphc.ops.sums import Sum

Share = Literal["rows", "sum"]
ROWS: Share = "rows"
SUM: Share = "sum"
ALONE = "alone"


@dataclass(frozen=True)
class Divisor:
    """The divisor of a weighted mean, computed from the feeds."""

    graph: Graph
    node: Node
    """The node of the loss."""

    @property
    def name(self) -> str:
        """The name of the divisor's node, once layers are expanded to ops."""
        return RowLoss.divisor(self.node.name)

    @property
    def operands(self) -> tuple[str, ...]:
        """The values that the divisor is computed from."""
        return tuple(self.node.inputs[i] for i in divided_by(self.node))

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs that have to be fed to compute the divisor."""
        return tuple(node.name for node in self._nodes if node.op.is_input)

    @property
    def key(self) -> tuple[object, ...]:
        """A key that is equal for losses with the same divisor."""
        sources = tuple(source_of(self.graph, name).name for name in self.operands)
        op = self.node.op
        assert isinstance(op, RowLoss)
        return sources, op if op.counts_by else None

    @property
    def reads_state(self) -> bool:
        """True if it depends on parameters or states, too."""
        return any(node.op.persistent for node in self._nodes)

    @cached_property
    def _nodes(self) -> list[Node]:
        """The nodes that compute the operands."""
        needed = self.graph.upstream(self.operands)
        return [node for node in self.graph if node.name in needed]

    def __call__(
        self, feeds: Mapping[str, Any], n: int, state: Mapping[str, Array] | None = None
    ) -> float:
        """Return the divisor for a batch of `n` rows."""
        nodes = self._nodes
        known = {node.name: state[node.name] for node in nodes if state and node.name in state}
        known |= {k: np.asarray(feeds[k], self.graph[k].type.dtype) for k in self.inputs}
        with np.errstate(all="ignore"):
            values = interpret(nodes, by_reference(n), known)
            op = self.node.op
            assert isinstance(op, RowLoss)
            return float(op.reference_divisor([values[name] for name in self.operands]))


def divided_by(node: Node) -> tuple[int, ...]:
    """Return the positions of the operands that make a weighted mean's divisor, else none."""
    return node.op.divided_by(len(node.inputs)) if isinstance(node.op, RowLoss) else ()


def divisors(graph: Graph) -> Iterator[Divisor]:
    """Yield the divisor of each weighted mean of a declared graph."""
    return (Divisor(graph, node) for node in graph if divided_by(node))


def loss_shares(graph: Graph) -> tuple[tuple[str, Share], ...]:
    """Return, for each loss of a declared graph, ROWS or SUM: how the shards' losses combine.

    A weighted mean counts by rows here, since a shard divides by the whole batch's divisor per
    row.  Raise GraphError for a loss that adds up values that count differently.
    """
    return tuple((loss, _share(graph, loss)) for loss in graph.losses)


def _share(graph: Graph, loss: str) -> Share:
    found = {kind if kind in (SUM, ALONE) else ROWS for kind in _kinds(graph, graph.outputs[loss])}
    if SUM in found and len(found) > 1:
        node = graph[graph.outputs[loss]]
        raise GraphError(
            f"loss {loss!r} adds a sum over the rows to something that is not one, so shards of "
            "a batch cannot "
            "add it up",
            operands=[node.described("loss")],
            hint="declare them as losses of their own: net.loss(...) for each",
        )
    return SUM if found == {SUM} else ROWS


def counted_by(graph: Graph, output: str) -> Share | Divisor:
    """Return how to combine an output without rows, computed for parts of the rows.

    ROWS also if no single count is right, as for the sum of means by different weights.
    """
    found = _kinds(graph, graph.outputs[output])
    kinds = found if SUM in found else found - {ALONE}
    kind = next(iter(kinds)) if len(kinds) == 1 else ROWS
    if kind in (ROWS, ALONE):
        return ROWS
    return SUM if kind == SUM else Divisor(graph, graph[kind])


def _kinds(graph: Graph, name: str) -> frozenset[str]:
    """Return how the terms of a value without rows count.

    Each is ROWS, SUM, ALONE for a term that depends on no row, or the name of a weighted mean.
    """
    found: dict[str, frozenset[str]] = {}
    needed = graph.upstream([name])
    for node in graph:
        if node.name in needed and not node.type.batched:
            found[node.name] = _of_node(graph, node, found)
    return found.get(name, frozenset({ROWS}))


def _of_node(graph: Graph, node: Node, found: dict[str, frozenset[str]]) -> frozenset[str]:
    op = node.op
    if divided_by(node):
        return frozenset({node.name})
    if any(graph[operand].type.batched for operand in node.inputs):
        added = op.reduction == "sum" if isinstance(op, RowLoss) else isinstance(op, (Sum, MatMul))
        return frozenset({SUM if added else ROWS})
    parts = [found[operand] for operand in node.inputs]
    of_rows = [part for part in parts if part - {ALONE}]
    if not of_rows:
        return frozenset({ALONE})
    if op.is_linear:
        return frozenset().union(*parts)
    factor = isinstance(op, (Mul, MatMul)) or (isinstance(op, Div) and parts[0] in of_rows)
    return of_rows[0] if factor and len(of_rows) == 1 else frozenset({ROWS})


def compares_rows(graph: Graph, values: Iterable[str]) -> Node | None:
    """Return the first node that the values depend on and that has the batch in two axes."""
    needed = graph.upstream(values)
    return next((n for n in graph if n.name in needed and n.type.pairs_rows), None)


def source_of(graph: Graph, name: str) -> Node:
    """Return the node whose numbers a value has, perhaps in another shape."""
    while isinstance(graph[name].op, Reshape):
        name = graph[name].inputs[0]
    return graph[name]
