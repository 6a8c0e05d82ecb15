"""Addresses, epochs and live ranges, computed from the tables of a program.

Time runs in half steps: step s reads at 2s and writes at 2s + 1.  A value from before the program
has time -1, and a value read when it is over is read at twice the number of steps.

Sizes are those of the largest batch.  No part of a size is negative
(`graphc.check.certificate.text` refuses such files), and offsets are fixed, so what a smaller
batch touches is part of what the largest does: what is disjoint for the largest is disjoint for
all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from graphc.check.certificate import Axis, Ints, Kind, ProgramTables, Space, Use

ALIGNMENT = 64


Bools = NDArray[np.bool_]
Size = TypeVar("Size", int, Ints)


def stable_order(numbers: Ints) -> Ints:
    """Return the indices that sort numbers, stably.

    It sorts by 16 bits at a time, for which NumPy has a radix sort: that is five times as fast.
    """
    if not len(numbers):
        return np.arange(0)
    above = numbers - numbers.min()
    order = np.argsort(above.astype(np.uint16), kind="stable")
    for shift in range(16, int(above.max()).bit_length(), 16):
        order = order[np.argsort((above[order] >> shift).astype(np.uint16), kind="stable")]
    return order


def sorted_unique(numbers: Ints) -> Ints:
    """Return the distinct numbers, sorted."""
    ordered = numbers[stable_order(numbers)]
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


def aligned(sizes: Size) -> Size:
    """Return sizes rounded up to the alignment."""
    return -(-sizes // ALIGNMENT) * ALIGNMENT


def size_at(sizes: Ints, n: int | Ints) -> Ints:
    """Return sizes a + b*N + c*N*N for n rows."""
    return np.asarray(sizes[..., 0] + (sizes[..., 1] + sizes[..., 2] * n) * n)


def size_product(a: Ints, b: Ints) -> Ints:
    """Return the product of sizes, in which N occurs at most twice."""
    cross = a[..., 0] * b[..., 1] + a[..., 1] * b[..., 0]
    square = a[..., 0] * b[..., 2] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 0]
    return np.stack((a[..., 0] * b[..., 0], cross, square), axis=-1)


def always_at_most(less: Ints, more: Ints, capacity: int) -> Bools:
    """Return whether sizes are at most others for every batch of up to `capacity` rows.

    Their difference is smallest at one end, or, if it bends upwards, where its slope is 0.
    """
    left = more - less
    bend = np.maximum(left[..., 2], 0)
    turn = -left[..., 1] // np.maximum(2 * bend, 1)
    ends = (np.ones_like(turn), np.full_like(turn, capacity), turn, turn + 1)
    smallest = [size_at(left, np.clip(n, 1, capacity)) for n in ends]
    return np.asarray(np.min(smallest, axis=0) >= 0)


@dataclass(frozen=True)
class Counterexample:
    """A violation of a rule by a program, in words.

    Examples
    --------
    >>> from graphc.check.verify.facts import Counterexample
    >>> print(Counterexample("buffers are aligned", "'h' starts at byte 4", ("step 0 writes it",)))
    buffers are aligned: 'h' starts at byte 4
      step 0 writes it
    """

    rule: str
    """The invariant, in a few words."""
    sentence: str
    """The fault, with names."""
    details: tuple[str, ...] = ()
    """The steps, buffers, bytes, epochs and threads involved."""

    def __str__(self) -> str:
        return "\n".join([f"{self.rule}: {self.sentence}", *(f"  {d}" for d in self.details)])


class Facts:
    """The tables of a program, and arrays that are computed from them once."""

    def __init__(self, tables: ProgramTables) -> None:
        self.tables = tables
        self.capacity = tables.capacity
        self.blocks, self.slots = tables.blocks, tables.slots
        self.buffers, self.steps, self.accesses = tables.buffers, tables.steps, tables.accesses
        self.end = len(self.steps.kind)
        """The number of steps, which is the step after the last."""

    # ------------------------------------------------------------------ bytes

    @cached_property
    def elements(self) -> Ints:
        """The elements of each buffer, as a + b*N + c*N*N."""
        return size_product(self.buffers.rows, self.buffers.columns)

    @cached_property
    def extent(self) -> Ints:
        """The bytes from the first of each buffer to past its last, with gaps between rows."""
        b = self.buffers
        dense = size_at(self.elements, self.capacity)
        rows, columns = size_at(b.rows, self.capacity), size_at(b.columns, self.capacity)
        wide = np.where(dense > 0, (rows - 1) * b.pitch + columns, 0)
        return np.asarray(np.where(b.pitch > 0, wide, dense) * b.item)

    @cached_property
    def base(self) -> Ints:
        """The start of each block, as if all blocks lay one after the other."""
        sizes = aligned(size_at(self.blocks.size, self.capacity)) + ALIGNMENT
        return np.cumsum(sizes) - sizes

    @cached_property
    def low(self) -> Ints:
        """The address of each buffer's first byte; one without bytes begins with its value."""
        b = self.buffers
        shift = np.where(self.extent > 0, b.shift * b.item, 0)
        return np.asarray(self.base[b.block] + b.offset + shift)

    @cached_property
    def high(self) -> Ints:
        """The address past each buffer's last byte."""
        return np.asarray(self.low + self.extent)

    @cached_property
    def space(self) -> Ints:
        """The kind of memory of each buffer: arena, state, feed, constant or gradient."""
        return self.blocks.space[self.buffers.block]

    # ------------------------------------------------------------------ time

    @cached_property
    def epochs(self) -> Ints:
        """The epoch of each step, and that of the end.

        An epoch ends at a barrier and at the forward/backward boundary; a call has its own.
        """
        kind = self.steps.kind
        alone = (kind != Kind.LOOP) & (kind != Kind.GEMM) & (kind != Kind.BARRIER)
        before = alone.astype(np.int64)
        if self.tables.boundary < self.end:
            before[self.tables.boundary] += 1
        after = (alone | (kind == Kind.BARRIER)).astype(np.int64)
        found = np.cumsum(before) + np.cumsum(after) - after
        return np.append(found, found[-1] + 1 if self.end else 0)

    @cached_property
    def value(self) -> Ints:
        """For each access, the buffer that owns the value: the root of the accessed buffer."""
        return self.buffers.root[self.accesses.buffer]

    @cached_property
    def writes(self) -> Ints:
        """The accesses that write results, by number."""
        return np.flatnonzero(self.accesses.use == Use.WRITE)

    @cached_property
    def initial(self) -> Bools:
        """The values before the program: feeds, constants, and of states what no step writes."""
        space, root = self.space, self.buffers.root
        given = (space == Space.FEED) | (space == Space.CONSTANT)
        held = (space == Space.STATE) & (self.written[1] < 0)
        return np.asarray((given | held) & (root == np.arange(len(root))))

    @cached_property
    def written(self) -> tuple[Ints, Ints]:
        """The first and the last step that writes each value; the end and -1 if none does."""
        first = np.full(len(self.buffers.root), self.end)
        last = np.full(len(self.buffers.root), -1)
        steps, values = self.accesses.step[self.writes], self.value[self.writes]
        np.maximum.at(last, values, steps)
        np.minimum.at(first, values, steps)
        return first, last

    @cached_property
    def read_at_end(self) -> Ints:
        """The values read at the end: outputs, gradients, next states, and states that stay."""
        t, root = self.tables, self.buffers.root
        moved = np.zeros(len(self.blocks.space), bool)
        moved[t.updates.block[t.updates.block >= 0]] = True
        kept = np.flatnonzero(self.initial & ~moved[self.buffers.block])
        named = np.concatenate((t.outputs.buffer, t.gradients.buffer))
        return np.concatenate((root[named], self.next_states[self.next_states >= 0], kept))

    @cached_property
    def next_states(self) -> Ints:
        """For each update, its value or a copy in the state's block at the end; -1 for none."""
        b, updates = self.buffers, self.tables.updates
        found = b.root[updates.buffer]
        outside = np.flatnonzero((b.block[found] != updates.block) | self.initial[found])
        if len(outside):
            copies = self._copies()
            for i in outside.tolist():
                found[i] = copies.get((int(updates.block[i]), int(found[i])), -1)
        return found

    def _copies(self) -> dict[tuple[int, int], int]:
        """Return the buffer that a value is copied to in a state's block, by block and value."""
        a, b = self.accesses, self.buffers
        found: dict[tuple[int, int], int] = {}
        mine = np.flatnonzero(self.steps.copies[a.step] == 1)
        reads = {int(a.step[i]): int(self.value[i]) for i in mine if a.use[i] == Use.READ}
        for i in mine.tolist():
            if a.use[i] == Use.WRITE and self.space[a.buffer[i]] == Space.STATE:
                source = reads.get(int(a.step[i]), -1)
                found[int(b.block[a.buffer[i]]), source] = int(self.value[i])
        return found

    @cached_property
    def live_range(self) -> tuple[Ints, Ints]:
        """The first and the last time at which each value needs its bytes; empty if unused."""
        a, count = self.accesses, len(self.buffers.root)
        start = np.full(count, 2 * self.end + 2)
        end = np.full(count, -2)
        reads = np.flatnonzero(a.use == Use.READ)
        times_read = 2 * a.step[reads]
        np.minimum.at(start, self.value[reads], times_read)
        np.maximum.at(end, self.value[reads], times_read)
        written = 2 * a.step[self.writes] + 1
        np.minimum.at(start, self.value[self.writes], written)
        np.maximum.at(end, self.value[self.writes], written)
        end[self.read_at_end] = 2 * self.end
        start[self.initial] = -1
        return start, end

    # ------------------------------------------------------------------ words

    def step_text(self, i: int) -> str:
        """Return the name of a step, `step 7 (gemm 'scores')`, or of the start or the end."""
        if i >= self.end:
            return "the end of the program"
        if i < 0:
            return "the start of the program"
        return f"step {i} ({Kind(self.steps.kind[i]).word} {self.steps.nodes[i]!r})"

    def step_of(self, access: int) -> str:
        """Return the name of the step of an access."""
        return self.step_text(int(self.accesses.step[access]))

    def partition_text(self, i: int) -> str:
        """Return the thread partition of a step, in words."""
        partition = Axis(self.steps.partition[i])
        return (
            "run by the first thread"
            if partition == Axis.NONE
            else f"partitioned by {partition.word}"
        )

    def buffer_text(self, i: int) -> str:
        """Return the name of a buffer, `'h' (arena bytes 0..64)`; the end is not included."""
        place = self._place(int(self.buffers.block[i]), int(self.low[i]), int(self.high[i]))
        return f"{self.buffers.names[i]!r} ({place})"

    def buffer_of(self, access: int) -> str:
        """Return the name of the buffer of an access."""
        return self.buffer_text(int(self.accesses.buffer[access]))

    def shared(self, i: int, j: int) -> str:
        """Return a sentence with the bytes that two buffers share."""
        low, high = max(self.low[i], self.low[j]), min(self.high[i], self.high[j])
        return f"they share {self._place(int(self.buffers.block[i]), int(low), int(high))}"

    def epoch_text(self, i: int) -> str:
        """Return the epoch of a step, in words."""
        return f"in epoch {self.epochs[min(max(i, 0), self.end)]}"

    def _place(self, block: int, low: int, high: int) -> str:
        """Return bytes of a block, given by address, in words."""
        space, base = Space(self.blocks.space[block]), int(self.base[block])
        whose = "" if space in (Space.ARENA, Space.GRADIENT) else f" {self.blocks.names[block]!r}"
        return f"{space.word}{whose} bytes {low - base:,}..{high - base:,}"
