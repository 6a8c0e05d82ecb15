"""Let a graph run on a shard of a batch: weigh its losses, and key its masks by whole rows.

    h.mask = dropout_mask(seed, draws)    ->    h.mask = dropout_mask(seed, draws, shard.first_row)
    loss = mean(rows)                           loss = mean(rows)
    output loss = loss                          loss.part = mul(loss, shard.share.rows)
                                                output loss = loss.part

The parts of all shards add up to the loss of the batch, and so do their gradients.  A loss that is
a mean over rows counts by the share of the rows that the shard has, one that is weighted by the
share of the weights, one that is a sum is a part as it is.

Batch normalisation takes the statistics of the shard, or, where they are to be those of the whole
batch, sums over all shards:

    bn.mean = mean(x)                     bn.mean.own = mean(x)
    bn.var = mean(bn.square)       ->     bn.mean.part = mul(bn.mean.own, shard.share.rows)
    bn = batchnorm_train(x, g, b)         bn.mean = total(bn.mean.part)
                                          ...
                                          bn = normalize(x, bn.mean, bn.var, g, b)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from graphc.build import Builder, Value
from graphc.graph import Graph, Node
from graphc.ops.dropout import DropoutMask
from graphc.ops.elementwise import mul
from graphc.ops.exchange import ShardInput, Total
from graphc.ops.norm import BatchNormTrain, Normalize
from graphc.ops.source import COUNTER

FIRST_ROW = "shard.first_row"
STATISTICS = ("mean", "var")
"""The parts of batch normalisation that depend on all rows, as its layer names them."""


@dataclass(frozen=True)
class Shard:
    """The graph of a shard; `counted` says by which share each loss counts ("" for a sum)."""

    name: ClassVar[str] = "shard"
    preserves: ClassVar[Literal["bitwise"]] = "bitwise"
    counted: tuple[tuple[str, str], ...]
    synchronise: bool = False
    """Whether batch normalisation takes the statistics of the whole batch."""

    def __call__(self, graph: Graph) -> Graph:
        """The graph with inputs that the executor feeds for each shard."""
        b = Builder.like(graph)
        norms = {n.name for n in graph if self.synchronise and isinstance(n.op, BatchNormTrain)}
        for node in graph:
            owner, _, part = node.name.rpartition(".")
            if isinstance(node.op, DropoutMask):
                b.insert(_keyed(b, node))
            elif node.name in norms:
                b.insert(_normalised(node))
            elif owner in norms and part in STATISTICS:
                _totalled(b, node)
            else:
                b.insert(node)
        b.take_roots(graph, {})
        for loss, share in self.counted:
            value = b.value(graph.outputs[loss])
            if share:
                with b.at(value.node.locs):
                    name = b.unique(f"{value.name}.part")
                    b.outputs[loss] = mul(value, share_of(b, share, value.dtype), name=name).name
        return b.graph()


def _keyed(b: Builder, node: Node) -> Node:
    """The mask by the rows' places in the whole batch."""
    if FIRST_ROW not in b.nodes:
        b.insert(Node(FIRST_ROW, ShardInput(COUNTER.shape, COUNTER.dtype), (), COUNTER))
    return Node(node.name, node.op, (*node.inputs, FIRST_ROW), node.type, node.locs)


def _totalled(b: Builder, node: Node) -> None:
    """A statistic of the whole batch from those of all shards."""
    own = b.insert(Node(f"{node.name}.own", node.op, node.inputs, node.type, node.locs))
    with b.at(node.locs):
        part = mul(own, share_of(b, "rows", own.dtype), name=f"{node.name}.part")
        b.apply(Total(), part, name=node.name)


def _normalised(node: Node) -> Node:
    """Batch normalisation by statistics that are nodes of their own."""
    assert isinstance(node.op, BatchNormTrain)
    x, gamma, beta = node.inputs
    statistics = (f"{node.name}.{part}" for part in STATISTICS)
    inputs = (x, *statistics, gamma, beta)
    return Node(node.name, Normalize(node.op.eps), inputs, node.type, node.locs)


def share_of(b: Builder, kind: str, dtype: str) -> Value:
    """The part of the batch that the shard is, as a number of that dtype."""
    name = f"shard.share.{kind}.{dtype}"
    if name in b.nodes:
        return b.value(name)
    with b.at(()):
        return b.apply(ShardInput((), dtype), name=name)
