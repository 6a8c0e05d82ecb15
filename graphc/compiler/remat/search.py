"""The choice of values to recompute, so that no moment of a step needs more than a limit.

A value that is recomputed frees its bytes from its last user in the forward part to its
first one in the backward part.  Its cost is its FLOPs, those of operands that are no longer in
memory, and memory: recomputed operands have to be in memory as early as it.

The choice is greedy: each step takes the value whose loss removes the most bytes above
the limit, summed over time, for the least work.  Elementwise results therefore come before
products, and of equal layers the one that is kept the longest; if many clones would
themselves exceed the limit, the value before them loses its merit and stays, as a checkpoint.
Each value is computed at most twice: see Chen et al. 2016 (arXiv:1604.06174) for the idea,
Kirisame et al. 2021 (arXiv:2006.09616) for bytes by time by cost as the measure.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from graphc.base.work import spend_nodes
from graphc.compiler.remat.values import SMALL, Value, Values, checkpoints
from graphc.ir.op import Array

FOLLOWED = 16
"""The number of operands whose visits count as the work of making one node."""
CLOSE = 0.98
"""The share of the best value's merit at which another is as good: equal layers differ by less."""
CHECKPOINTS = (0, 4, 8, 16)
"""The numbers of checkpoints to try, one after the other, until the limit is kept."""


class Change(NamedTuple):
    """A change of the bytes that are needed from `start` up to, but without, `end`."""

    start: int
    end: int
    nbytes: int


@dataclass(eq=False)
class Move:
    """One value to recompute, and what follows for memory and work."""

    value: Value
    time: int
    recomputed: list[Value] = field(default_factory=list)
    """The values to recompute for it that are not yet recomputed, itself included."""
    advanced: list[Value] = field(default_factory=list)
    """The recomputed values that have to be recomputed earlier now."""
    kept: list[Value] = field(default_factory=list)
    """The values that have to be kept for longer."""
    changes: list[Change] = field(default_factory=list)

    @property
    def work(self) -> int:
        """The cost of the move."""
        return sum(value.work if value.last > value.time else 1 for value in self.recomputed)


class Choice:
    """The values that are recomputed, and the bytes that each moment needs."""

    def __init__(self, values: Values) -> None:
        self.values = values
        self.recomputed: dict[Value, int] = {}
        """The time at which each value is recomputed."""
        self.until = {value: max([value.last, *value.reads]) for value in values.all}
        """The time of the last read of each value, by clones as well."""
        self.first = {value: min(value.reads) for value in values.all if value.reads}
        """The time of the first read of each value in the backward part, by clones as well."""
        self.bytes: Array = np.zeros(len(values.graph) + 2, np.int64)
        for value in values.all:
            self.bytes[value.time] += value.nbytes
            self.bytes[self.until[value] + 1] -= value.nbytes
        self.bytes = np.cumsum(self.bytes)

    @property
    def peak(self) -> int:
        """The most bytes that the choice needs at any moment."""
        return int(self.bytes.max())

    def excess(self, limit: int) -> int:
        """Return the bytes above the limit, summed over time."""
        return int(np.maximum(self.bytes - limit, 0).sum())

    def names(self) -> frozenset[str]:
        """Return the nodes that are recomputed, aliases included."""
        return frozenset(name for value in self.recomputed for name in value.names)

    def move(self, value: Value) -> Move:
        """Return the move that recomputes a value."""
        time = self.first[value]
        move = Move(value, time)
        move.changes.append(Change(value.last + 1, time, -value.nbytes))
        spend_nodes(1 + self._need(move, value) // FOLLOWED)
        return move

    def _need(self, move: Move, value: Value) -> int:
        """Add to a move what recomputing a value needs; return how many values were visited."""
        found, stack = {value}, [value]
        move.recomputed.append(value)
        while stack:
            for operand in stack.pop().operands:
                if operand in found:
                    continue
                found.add(operand)
                if operand in self.recomputed:
                    if self.recomputed[operand] > move.time:
                        move.advanced.append(operand)
                        end = self.recomputed[operand]
                        move.changes.append(Change(move.time, end, operand.nbytes))
                        stack.append(operand)
                elif self._is_recomputed(operand, value):
                    move.recomputed.append(operand)
                    stack.append(operand)
                elif self.until[operand] < move.time:
                    move.kept.append(operand)
                    end = self.until[operand]
                    move.changes.append(Change(end + 1, move.time + 1, operand.nbytes))
        return len(found)

    def _is_recomputed(self, operand: Value, value: Value) -> bool:
        """Return whether an operand that is not kept is recomputed rather than kept for longer."""
        small = operand.nbytes * SMALL <= value.nbytes
        return operand not in self.first and operand.may_recompute and not small

    def removed(self, move: Move, limit: int) -> int:
        """Return by how much a move makes the excess smaller."""
        low = min(change.start for change in move.changes)
        high = max(change.end for change in move.changes)
        before = self.bytes[low:high]
        after = before.copy()
        for start, end, nbytes in move.changes:
            after[start - low : end - low] += nbytes
        return int(np.maximum(before - limit, 0).sum() - np.maximum(after - limit, 0).sum())

    def apply(self, move: Move) -> None:
        """Apply a move to the choice."""
        for start, end, nbytes in move.changes:
            self.bytes[start:end] += nbytes
        for value in (*move.recomputed, *move.advanced):
            self.recomputed[value] = move.time
            for operand in value.operands:
                self.first[operand] = min(self.first.get(operand, move.time), move.time)
                self.until[operand] = max(self.until[operand], move.time)


def choose(values: Values, limit: int) -> Choice | None:
    """Return a choice within the limit, in bytes, with little work; None if none is found."""
    found = (_greedy(values, limit, count) for count in CHECKPOINTS)
    return next((choice for choice in found if choice is not None), None)


def least(values: Values) -> Choice:
    """Return the choice with the smallest peak that is found, by bisection of the limit."""
    best = Choice(values)
    for count in CHECKPOINTS:
        low, high = 0, best.peak
        while high - low > max(high // 50, 1):
            middle = (low + high) // 2
            found = _greedy(values, middle, count)
            if found is None:
                low = middle
            else:
                best, high = found, found.peak
    return best


def _greedy(values: Values, limit: int, count: int) -> Choice | None:
    """Return a choice that keeps `count` checkpoints, or None if it cannot keep the limit."""
    kept = checkpoints(values, count) if count else frozenset[Value]()
    choice = Choice(values)
    queue = _Queue(choice, limit)
    excess = choice.excess(limit)
    queue.push(v for v in values.all if v.saved and v.may_recompute and v not in kept)
    while excess > 0:
        move = queue.pop()
        if move is None:
            return None
        excess -= choice.removed(move, limit)
        choice.apply(move)
        queue.push(v for v in _cheaper(move, choice) if v not in kept)
    return choice


def _cheaper(move: Move, choice: Choice) -> Iterable[Value]:
    """Return the values whose recomputation a move may have made cheaper."""
    users = dict.fromkeys(user for value in move.recomputed for user in value.users)
    return [
        user
        for user in users
        if user.saved and user.may_recompute and user not in choice.recomputed
    ]


class _Queue:
    """Values ordered by merit, which is only computed anew for those at the front."""

    def __init__(self, choice: Choice, limit: int) -> None:
        self._choice, self._limit = choice, limit
        self._heap: list[tuple[float, int]] = []
        self._at = {value.time: value for value in choice.values.all}

    def push(self, values: Iterable[Value]) -> None:
        """Add values to the queue."""
        for value in values:
            heapq.heappush(self._heap, (-self._merit(self._choice.move(value)), value.time))

    def pop(self) -> Move | None:
        """Return the best move; None if none has any merit."""
        while self._heap:
            _, time = heapq.heappop(self._heap)
            value = self._at[time]
            if value in self._choice.recomputed:
                continue
            move = self._choice.move(value)
            merit = self._merit(move)
            if merit <= 0:
                continue
            if not self._heap or merit >= -CLOSE * self._heap[0][0]:
                return move
            heapq.heappush(self._heap, (-merit, time))
        return None

    def _merit(self, move: Move) -> float:
        return self._choice.removed(move, self._limit) / move.work
