"""Make a graph compute on a shard of a batch: weight its losses, and key its masks by row.

    h.mask = dropout_mask(seed, draws)    ->    h.mask = dropout_mask(seed, draws, shard.first_row)
    loss = mean(rows)                           loss = mean(rows)
    output loss = loss                          loss.part = mul(loss, shard.share.rows)
                                                output loss = loss.part

The parts of all shards add up to the loss of the batch, and so do their gradients.  A loss that is
a mean over rows counts by the share of the rows that the shard has, one that is a sum as it is: by
1, or by 0 on a shard that has no rows and runs on another's.  A weighted mean is divided by that
share of the whole batch's divisor, and then counts by rows, too:

    loss.weight = sum(weight)                   loss.weight = shard_input()
    loss = div(loss.total, loss.weight)         loss = div(loss.total, loss.weight)

Batch normalisation takes the statistics of the shard, or, if those of the whole batch are asked
for, sums over all shards:

    bn.mean = mean(x)                     bn.mean.own = mean(x)
    bn.var = mean(bn.square)       ->     bn.mean.part = mul(bn.mean.own, shard.share.rows)
    bn = batchnorm_train(x, g, b)         bn.mean = total(bn.mean.part)
                                          ...
                                          bn = normalize(x, bn.mean, bn.var, g, b)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from graphc.base.errors import GraphError
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Role, step_of, with_step
from graphc.ir.step_graph import StepGraph
from graphc.ir.tensor_type import Batch
from graphc.ops.elementwise import mul
from graphc.ops.exchange import FIRST_ROW, SHARE, ShardInput, Total
from graphc.ops.norm import BatchNormDgamma, BatchNormDx, BatchNormTrain, Normalize
from graphc.ops.random_numbers import Drawn
from graphc.ops.source import COUNTER, Input, constant

STATISTICS = ("mean", "var")
"""The parts of batch normalisation that depend on all rows, as its layer names them."""


@dataclass(frozen=True)
class Shard:
    """The pass that makes the graph of a shard; `counted` gives each loss's kind of share."""

    name: ClassVar[str] = "shard"
    of_step: ClassVar[None] = None
    preserves: ClassVar[Literal["bitwise"]] = "bitwise"
    counted: tuple[tuple[str, str], ...]
    divisors: tuple[str, ...] = ()
    """The nodes that weighted means are divided by."""
    synchronise: bool = False
    """True if batch normalisation takes the statistics of the whole batch."""

    def __call__(self, graph: Graph) -> Graph:
        """Return the graph with inputs that the executor feeds for each shard.

        Raise GraphError for pairs of rows, for a derivative inside the net that would need sums
        over all shards, and for weights that do not depend on the feeds alone.
        """
        counted = graph.upstream(graph.outputs[loss] for loss, _ in self.counted)
        for name in self.divisors:
            if name in counted:
                _check_weights(graph, name)
        if self.synchronise:
            _check_derivatives(graph)
        _check_pairs(graph)
        b = self._with_inputs(graph)
        b.take_roots(graph, {})
        for loss, share in self.counted:
            value = b.value(graph.outputs[loss])
            with b.at(value.node.locs):
                name = b.unique(f"{value.name}.part")
                b.outputs[loss] = mul(value, share_of(b, share, value.dtype), name=name).name
        return b.graph()

    def _with_inputs(self, graph: Graph) -> Builder:
        """Return the nodes, which read inputs that the executor feeds for each shard."""
        b = Builder.like(graph)
        norms = {n.name for n in graph if self.synchronise and isinstance(n.op, BatchNormTrain)}
        statistics = {f"{norm}.{part}" for norm in norms for part in STATISTICS}
        for node in graph:
            if isinstance(node.op, Drawn) or node.op.is_joint:
                b.insert(_keyed(b, node))
            elif node.name in norms:
                b.insert(_normalised(node))
            elif node.name in self.divisors:
                op = ShardInput((), node.type.dtype, Role("divisor"))
                b.insert(Node(node.name, op, (), node.type, node.locs))
            elif node.name in statistics:
                _totalled(b, node)
            else:
                b.insert(node)
        return b


def _check_weights(graph: Graph, divisor: str) -> None:
    for name in sorted(graph.upstream([divisor])):
        if graph[name].op.persistent:
            raise GraphError(
                f"a loss is weighted by what is computed from {name!r}, so a shard cannot know "
                "what the whole batch's weights are",
                operands=[graph[name].described(graph[name].op.name)],
                loc=graph[divisor].loc,
                hint="weigh rows by inputs and constants, or compile without shards",
            )


def _check_pairs(graph: Graph) -> None:
    for node in graph:
        if node.type.pairs_rows:
            raise GraphError(
                f"{node.name!r} compares the rows of a batch with each other, so a batch cannot be "
                "cut into shards",
                operands=[node.described("pairs of rows")],
                loc=node.loc,
                hint="compile without shards and ranks: all rows of a step stay in one process",
            )


def _check_derivatives(graph: Graph) -> None:
    for node in graph:
        if isinstance(node.op, (BatchNormDx, BatchNormDgamma)):
            raise GraphError(
                "gc.grad differentiates a batchnorm, which synchronised shards cannot do: each has "
                "its own rows",
                loc=node.loc,
                hint="compile without sync_batchnorm, or declare it with frozen=True",
            )


def _keyed(b: Builder, node: Node) -> Node:
    """Return random numbers, or a loop with such, keyed by rows of the batch if they have rows."""
    if (step := step_of(node.op)) is not None:
        return _with_keyed_step(b, node, step)
    rows = node.type.shape[0]
    if not isinstance(rows, Batch):
        return node
    first = _first_row(b, rows.factor)
    return Node(node.name, node.op, (*node.inputs, first), node.type, node.locs)


def _with_keyed_step(b: Builder, node: Node, step: StepGraph) -> Node:
    """Return a result of a loop whose masks are keyed by rows of the whole batch."""
    step, factors = _keyed_step(step)
    firsts = (_first_row(b, factor) for factor in factors)
    return replace(node, op=with_step(node.op, step), inputs=(*node.inputs, *firsts))


def _keyed_step(step: StepGraph) -> tuple[StepGraph, tuple[int, ...]]:
    """Return the step with a further input for each factor of the first row that masks need."""
    names: dict[int, str] = {}

    def first(factor: int) -> str:
        name = f"{FIRST_ROW}.times_{factor}"
        while name in step.types:
            name += "_"
        return names.setdefault(factor, name)

    nodes: list[Node] = []
    for node in step.nodes:
        more: tuple[str, ...] = ()
        if (own := step_of(node.op)) is not None:
            inner, factors = _keyed_step(own)
            node = replace(node, op=with_step(node.op, inner))
            more = tuple(map(first, factors))
        elif isinstance(node.op, Drawn) and isinstance(rows := node.type.shape[0], Batch):
            more = (first(rows.factor),)
        nodes.append(replace(node, inputs=(*node.inputs, *more)))
    if not names:
        return step, ()
    made = [Node(name, Input(COUNTER.shape, COUNTER.dtype), (), COUNTER) for name in names.values()]
    whole = (*step.whole, *names.values())
    return replace(step, nodes=(*made, *nodes), whole=whole), tuple(names)


def _first_row(b: Builder, factor: int) -> str:
    """Return the index of the shard's first row, in arrays that have `factor` rows for each row."""
    if FIRST_ROW not in b.nodes:
        op = ShardInput(COUNTER.shape, COUNTER.dtype, Role("first_row"))
        b.insert(Node(FIRST_ROW, op, (), COUNTER))
    name = FIRST_ROW if factor == 1 else f"{FIRST_ROW}.times_{factor}"
    if name not in b.nodes:
        with b.at(()):
            by = constant(b, factor, COUNTER.dtype, name=f"{name}.factor")
            mul(b.value(FIRST_ROW), by, name=name)
    return name


def _totalled(b: Builder, node: Node) -> None:
    """Add a statistic of the whole batch, computed from those of all shards."""
    own = b.insert(Node(f"{node.name}.own", node.op, node.inputs, node.type, node.locs))
    with b.at(node.locs):
        part = mul(own, share_of(b, "rows", own.dtype), name=f"{node.name}.part")
        b.apply(Total(), part, name=node.name)


def _normalised(node: Node) -> Node:
    """Return the batch normalisation by statistics that are separate nodes."""
    assert isinstance(node.op, BatchNormTrain)
    x, gamma, beta = node.inputs
    inputs = (x, *(f"{node.name}.{part}" for part in STATISTICS), gamma, beta)
    return Node(node.name, Normalize(node.op.eps), inputs, node.type, node.locs)


def share_of(b: Builder, kind: str, dtype: str) -> Value:
    """Return the share of the batch that the shard has, as a number of that dtype."""
    name = f"{SHARE}{kind}.{dtype}"
    if name in b.nodes:
        return b.value(name)
    with b.at(()):
        return b.apply(ShardInput((), dtype, Role("share", part=kind)), name=name)
