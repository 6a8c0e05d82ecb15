"""The values of a training graph: bytes, FLOPs, and their forward and backward users.

Times are positions in the schedule.  The last node that an output depends on is the
forward/backward boundary; the backward part runs after it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from graphc.compiler.schedule import schedule
from graphc.ir.graph import Graph, Node, boundary
from graphc.ir.tensor_type import align
from graphc.ops.shape import Reshape, StopGradient

SMALL = 8
"""A value of at most 1/SMALL of an operand's or a user's bytes, such as a statistic, is kept."""


@dataclass(eq=False, slots=True)
class Value:
    """A computed value, with all nodes that are aliases of its bytes."""

    name: str
    time: int
    nbytes: int
    """The bytes in the arena: 0 if it is written to a state or returned as a gradient."""
    flops: int
    work: int
    """The FLOPs, and a share for the bytes, so that copies have a cost, too."""
    may_recompute: bool
    names: list[str]
    operands: list[Value] = field(default_factory=list, repr=False)
    users: list[Value] = field(default_factory=list, repr=False)
    last: int = 0
    """The time of the last read in the forward part."""
    reads: list[int] = field(default_factory=list)
    """The times of the reads in the backward part, in order."""

    @property
    def saved(self) -> bool:
        """True if the value is kept for the backward part."""
        return bool(self.reads)


class Values:
    """All computed values of a graph for `n` rows, by name and in order."""

    def __init__(self, graph: Graph, n: int) -> None:
        self.graph, self.n = graph, n
        order = schedule(graph).order
        self.boundary = boundary(graph, order)
        self.of: dict[str, Value] = {}
        """For each node that is not a source, its value, which aliases share."""
        self.all: list[Value] = []
        self._outside = {*graph.updates.values(), *graph.gradients.values()}
        for time, node in enumerate(order):
            if not node.op.is_source:
                self._add(time, node)
        for name in graph.outputs.values():
            if name in self.of:  # outputs are read when the run is over
                self.of[name].reads.append(len(graph))
                self.of[name].may_recompute = False

    def _add(self, time: int, node: Node) -> None:
        operands = [self.of[name] for name in dict.fromkeys(node.inputs) if name in self.of]
        for operand in operands:
            if time > self.boundary:
                operand.reads.append(time)
            else:
                operand.last = time
        if isinstance(node.op, (Reshape, StopGradient)) and operands:
            self.of[node.name] = operands[0]
            operands[0].names.append(node.name)
            return
        value = self._value(time, node)
        value.operands = list(dict.fromkeys(operands))
        for operand in value.operands:
            operand.users.append(value)
        self.of[node.name] = value
        self.all.append(value)

    def _value(self, time: int, node: Node) -> Value:
        types = [self.graph[name].type for name in node.inputs]
        flops = sum(node.op.flops(types, node.type, self.n))
        nbytes = align(node.type.nbytes(self.n))
        placed = 0 if node.name in self._outside else nbytes
        largest = max((self.of[name].nbytes for name in node.inputs if name in self.of), default=0)
        may = time <= self.boundary and placed * SMALL > largest and self._may_repeat(node)
        return Value(
            node.name, time, placed, flops, flops + nbytes // 4, may, [node.name], last=time
        )

    def _may_repeat(self, node: Node) -> bool:
        """Return whether a clone computes the same, and can wait for the backward part.

        It cannot if all its operands are states that change; such a state is copied if the forward
        part changes it, which is for small ones only.
        """
        changed = [name for name in node.inputs if name in self.graph.updates]
        if len(changed) == len(node.inputs):
            return False
        if not self.graph.gradients:
            return True
        copied = sum(self.graph[name].type.nbytes(self.n) for name in changed)
        return copied * SMALL <= node.type.nbytes(self.n)


def checkpoints(values: Values, count: int) -> frozenset[Value]:
    """Return the values that the forward part still needs at each of `count` moments.

    The moments are those with the fewest such bytes near cuts into pieces of saved bytes that
    become smaller evenly: when a later piece is recomputed, more checkpoints are still in memory.
    """
    size = values.boundary + 2
    live, saved = np.zeros(size, np.int64), np.zeros(size, np.int64)
    forward = [value for value in values.all if value.time <= values.boundary]
    for value in forward:
        live[value.time] += value.nbytes
        live[value.last + 1] -= value.nbytes
        saved[value.time] += value.nbytes * value.saved
    live, share = np.cumsum(live), np.cumsum(saved) / max(saved.sum(), 1)
    ends = [1 - (1 - (j + 0.5) / (count + 1)) ** 2 for j in range(count + 1)]
    places = np.searchsorted(share, ends)
    found: set[Value] = set()
    for low, high in pairwise(places):
        if low < high:
            moment = low + int(np.argmin(live[low:high]))
            found.update(value for value in forward if value.time <= moment < value.last)
    return frozenset(found)
