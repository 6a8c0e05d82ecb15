"""Add up what each shard of a step computes: gradients, losses, running statistics.

    d_w = ...                      d_w = ...
    gradients w: d_w        ->     d_w.sent = send(d_w)  bucket=0 members=2 offset=0
                                   d_b.sent = send(d_b)  bucket=0 members=2 offset=1024
                                   d_w.sum = receive(d_w.sent)  bucket=0 members=2
                                   gradients w: d_w.sum

Gradients lie in one flat buffer in the order in which they are computed, the last layer's first.
A bucket is a piece of it that is sent as soon as it is complete, while the backward pass continues.
The last bucket also holds the losses, and states that depend on rows, which are averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from graphc.base.errors import GraphError
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import align
from graphc.ops.elementwise import mul
from graphc.ops.exchange import Receive, Send, ShardInput, Total
from graphc.ops.fused import After
from graphc.ops.source import Input, Parameter
from passes.shard import share_of

BUCKET_BYTES = 512 * 2**10
"""The bytes at which a bucket is closed.

It is large enough that its bytes, not its messages, take the time, and small enough that the first
is sent while most of the backward pass is still to come.
"""


@dataclass(frozen=True)
class DataParallel:
    """The pass that exchanges all values that shards have to agree on."""

    name: ClassVar[str] = "data_parallel"
    preserves: ClassVar[Literal["bitwise"]] = "bitwise"

    def __call__(self, graph: Graph) -> Graph:
        """Return the graph whose gradients, losses and states are those of the whole batch."""
        b = Builder.extending(graph)
        position = {name: i for i, name in enumerate(graph.nodes)}
        gradients = sorted(_gradients(b).items(), key=lambda pair: position[pair[1].name])
        b.gradients.clear()
        values = [value for _, value in gradients]
        values += [b.value(graph.outputs[loss]) for loss in graph.losses]
        states = list(_of_rows(graph))
        values += [_averaged(b, graph.updates[state]) for state in states]
        sums = [arrived.name for arrived in _exchanged(b, values)]
        b.gradients.update({k: v for (k, _), v in zip(gradients, sums, strict=False)})
        others = iter(sums[len(gradients) :])
        b.outputs.update({loss: next(others) for loss in graph.losses})
        b.updates.update({state: next(others) for state in states})
        if not any(isinstance(node.op, Total) for node in graph):
            return b.graph()
        for state in sorted(graph.updates.keys() - set(states)):
            _advance_late(b, state, sums[-1])
        return _split_totals(b.graph())


def _gradients(b: Builder) -> dict[str, Value]:
    """Return the gradients in the builder that belong to parameters."""
    return {
        name: b.value(gradient)
        for name, gradient in b.gradients.items()
        if isinstance(b.nodes[name].op, Parameter)
    }


def _advance_late(b: Builder, state: str, event: str) -> None:
    """Update a counter only at the end: shards that run in step all read its old value."""
    value = b.value(b.updates[state])
    with b.at(value.node.locs):
        late = b.apply(After(), value, b.value(event), name=b.unique(f"{value.name}.at_end"))
    b.updates[state] = late.name


def _split_totals(graph: Graph) -> Graph:
    """Return the graph in which each total that later nodes read is exchanged by itself."""
    sends = [node.op for node in graph if isinstance(node.op, Send)]
    number = 1 + max((op.bucket for op in sends), default=-1)
    lying = (op.offset + align(n.type.nbytes(1)) for n in graph if isinstance(op := n.op, Send))
    offset = max(lying, default=0)
    b = Builder.like(graph)
    for node in graph:
        if not isinstance(node.op, Total):
            b.insert(node)
            continue
        with b.at(node.locs):
            sent = b.apply(Send(number, 1, offset), b.value(*node.inputs), name=f"{node.name}.sent")
        b.insert(Node(node.name, Receive(number, 1), (sent.name,), node.type, node.locs))
        number, offset = number + 1, offset + align(node.type.nbytes(1))
    b.take_roots(graph, {})
    return b.graph()


def _of_rows(graph: Graph) -> Iterator[str]:
    """Yield the states whose next value depends on the rows of the batch."""
    fed = [node.name for node in graph if _is_of_rows(node.op)]
    reached = graph.downstream(fed)
    for state, value in graph.updates.items():
        if value in reached:
            if not graph[value].type.is_float:
                raise GraphError(
                    f"state {state!r} is {graph[value].type}, and depends on the rows of the batch",
                    hint="shards can average only floats",
                )
            yield state


def _is_of_rows(op: object) -> bool:
    return isinstance(op, Input) and not isinstance(op, ShardInput)


def _averaged(b: Builder, name: str) -> Value:
    """Return a state's next value times the share of the rows that it was computed from."""
    value = b.value(name)
    with b.at(value.node.locs):
        share = share_of(b, "rows", value.dtype)
        return mul(value, share, name=b.unique(f"{name}.part"))


def _exchanged(b: Builder, values: Sequence[Value]) -> list[Value]:
    """Return the sums of these values over all shards."""
    sent: list[Value] = []
    buckets = list(_buckets(values))
    offset = 0
    for number, bucket in enumerate(buckets):
        for value in bucket:
            with b.at(value.node.locs):
                op = Send(number, len(bucket), offset)
                sent.append(b.apply(op, value, name=b.unique(f"{value.name}.sent")))
            offset += align(value.type.nbytes(1))
    numbers = [(i, len(bucket)) for i, bucket in enumerate(buckets) for _ in bucket]
    found: list[Value] = []
    for value, way, (number, members) in zip(values, sent, numbers, strict=True):
        with b.at(value.node.locs):
            total = Receive(number, members)
            found.append(b.apply(total, way, name=b.unique(f"{value.name}.sum")))
    return found


def _buckets(values: Sequence[Value]) -> Iterator[list[Value]]:
    """Yield the values in their order, cut where a bucket is full or the dtype changes."""
    bucket: list[Value] = []
    size = 0
    for value in values:
        if bucket and (size >= BUCKET_BYTES or bucket[0].dtype != value.dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(value)
        size += align(value.type.nbytes(1))
    if bucket:
        yield bucket
