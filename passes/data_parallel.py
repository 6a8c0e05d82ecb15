"""Sum the gradients, losses and running statistics of all shards of a step.

    d_w = ...                      d_w = ...
    gradients w: d_w        ->     d_w.sent = send(d_w)  bucket=0 members=2 offset=0
                                   d_b.sent = send(d_b)  bucket=0 members=2 offset=1024
                                   d_w.sum = receive(d_w.sent)  bucket=0 members=2
                                   gradients w: d_w.sum

Gradients are in one flat buffer, in the order in which they are computed, the last layer's first.
A bucket is a piece of it that is sent as soon as it is complete, while the backward pass continues.
The last bucket also has the losses, and the states that depend on rows, which are averaged.
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
from graphc.ops.exchange import Receive, Send, Total
from graphc.ops.fused import After
from passes.shard import share_of

BUCKET_BYTES = 512 * 2**10
"""The bytes at which a bucket is closed.

It is large enough that the time depends on bytes, not on the number of messages, and small enough
that the first bucket is sent early in the backward pass.
"""


@dataclass(frozen=True)
class DataParallel:
    """The pass that exchanges the values that must be equal on all shards."""

    name: ClassVar[str] = "data_parallel"
    of_step: ClassVar[None] = None
    preserves: ClassVar[Literal["bitwise"]] = "bitwise"

    def __call__(self, graph: Graph) -> Graph:
        """Return the graph whose gradients, losses and states are those of the whole batch."""
        b = Builder.extending(graph)
        position = {name: i for i, name in enumerate(graph.nodes)}
        gradients = sorted(_gradients(b).items(), key=lambda pair: position[pair[1].name])
        b.gradients.clear()
        values = [value for _, value in gradients]
        values += [b.value(graph.outputs[loss]) for loss in graph.losses]
        states = list(_row_dependent(graph))
        values += [_averaged(b, graph.updates[state]) for state in states]
        sent = _sent(b, values)
        sums = [_received(b, *each).name for each in sent]
        b.gradients.update({k: v for (k, _), v in zip(gradients, sums, strict=False)})
        others = iter(sums[len(gradients) :])
        b.outputs.update({loss: next(others) for loss in graph.losses})
        b.updates.update({state: next(others) for state in states})
        if not any(isinstance(node.op, Total) for node in graph):
            return b.graph()
        for state in sorted(graph.updates.keys() - set(states)):
            _advance_late(b, state, sums[-1])
        last = sent[-1][1]
        end = last.offset + align(values[-1].type.nbytes(1))
        return _split_totals(b.graph(), last.bucket + 1, end)


def _gradients(b: Builder) -> dict[str, Value]:
    """Return the gradients in the builder that belong to parameters."""
    return {
        name: b.value(gradient)
        for name, gradient in b.gradients.items()
        if b.nodes[name].op.is_parameter
    }


def _advance_late(b: Builder, state: str, event: str) -> None:
    """Update a counter only at the end: shards in lockstep all read its old value."""
    value = b.value(b.updates[state])
    with b.at(value.node.locs):
        late = b.apply(After(), value, b.value(event), name=b.unique(f"{value.name}.at_end"))
    b.updates[state] = late.name


def _split_totals(graph: Graph, number: int, offset: int) -> Graph:
    """Return the graph in which each total that later nodes read is exchanged by itself.

    `number` and `offset` are those of the first bucket that is free.
    """
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


def _row_dependent(graph: Graph) -> Iterator[str]:
    """Yield the states whose next value depends on the rows of the batch."""
    fed = [node.name for node in graph if node.op.is_input and not node.op.is_of_shard]
    reached = graph.downstream(fed)
    for state, value in graph.updates.items():
        if value in reached:
            if not graph[value].type.is_float:
                raise GraphError(
                    f"state {state!r} is {graph[value].type}, and depends on the rows of the batch",
                    hint="shards can average only floats",
                )
            yield state


def _averaged(b: Builder, name: str) -> Value:
    """Return a state's next value times the share of the rows that it was computed from."""
    value = b.value(name)
    with b.at(value.node.locs):
        return mul(value, share_of(b, "rows", value.dtype), name=b.unique(f"{name}.part"))


def _sent(b: Builder, values: Sequence[Value]) -> list[tuple[Value, Send, Value]]:
    """Add the sends of these values; return each value, the op and the node that sends it."""
    found: list[tuple[Value, Send, Value]] = []
    offset = 0
    for number, bucket in enumerate(_buckets(values)):
        for value in bucket:
            op = Send(number, len(bucket), offset)
            with b.at(value.node.locs):
                found.append((value, op, b.apply(op, value, name=b.unique(f"{value.name}.sent"))))
            offset += align(value.type.nbytes(1))
    return found


def _received(b: Builder, value: Value, op: Send, sent: Value) -> Value:
    """Return the sum of a value over all shards."""
    with b.at(value.node.locs):
        return b.apply(Receive(op.bucket, op.members), sent, name=b.unique(f"{value.name}.sum"))


def _buckets(values: Sequence[Value]) -> Iterator[list[Value]]:
    """Yield the buckets: the values in order, divided where one is full or the dtype changes."""
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
