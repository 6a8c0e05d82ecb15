"""The thread partition of kernels: which thread touches which bytes.

The thread partition of a dimension is a function of its size alone: rows in chunks of 16, columns
in blocks of 64, the columns of a matrix product in panels; a thread gets the units from
t * units / threads on.  So two accesses are by the same thread, byte for byte, for every number of
threads and every batch, if they agree in the way of sharing, the size that is shared as a formula
in N, the address of the first unit, the bytes from one to the next, and those of each.  No case
is tried: the numbers themselves are compared.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from graphc.check.certificate import Axis, Ints, Kind, Pattern, Use
from graphc.check.verify.facts import Bools, Facts, size_at

ALL, FIRST, BY_ROWS, BY_COLUMNS, BY_PANELS = range(5)
UNITS = {BY_ROWS: 16, BY_COLUMNS: 64}
PANEL_BYTES = 128
"""The bytes of a panel of columns with vectors of 512 bits; only examples depend on it."""
WAYS = (
    "every thread touches all of it",
    "the first thread has all of it",
    "each thread has some rows",
    "each thread has some columns",
    "each thread has some panels of columns",
)

DEPENDS = np.array([[2, 2], [1, 1], [1, 0], [0, 1], [0, 0], [3, 3], [4, 4], [5, 5]])
"""The dependence of each pattern on row and column, 1 or 0; other patterns have other numbers."""


def _is_one(size: Ints) -> Bools:
    return np.asarray((size == (1, 0, 0)).all(axis=1))


def _shared() -> Ints:
    """Return the way of sharing for each kind of access.

    It is indexed by kernel (loop, product, product of a transposed a), partition and pattern.
    """
    found = np.full((3, len(Axis), len(Pattern)), ALL)
    found[:, Axis.NONE] = FIRST
    found[:, Axis.ROWS, [Pattern.EACH, Pattern.ROW]] = BY_ROWS
    found[1, Axis.ROWS, Pattern.LEFT] = BY_ROWS
    found[0, Axis.COLUMNS, [Pattern.EACH, Pattern.COLUMN]] = BY_COLUMNS
    found[1:, Axis.COLUMNS, [Pattern.EACH]] = found[1:, Axis.COLUMNS, [Pattern.COLUMN]] = BY_PANELS
    return found


SHARED = _shared()
START = 3
"""The position of the address of the first unit among the numbers of `Threads.key`."""


class Threads:
    """The threads of the accesses of a program."""

    def __init__(self, f: Facts) -> None:
        self.f = f

    def agree(self, i: Ints, j: Ints, by_place: bool = False) -> Bools:
        """Return for pairs of accesses whether the same thread makes both, for every byte.

        Accesses of buffers in two places are compared `by_place` within the buffer.
        """
        same = (self.way[i] == self.way[j]) & (self.way[i] != ALL)
        shared = np.flatnonzero(same & (self.way[i] != FIRST))
        low, value = self.f.low, self.f.value
        i, j = i[shared], j[shared]
        for number, (x, y) in enumerate(zip(self.key(i), self.key(j), strict=True)):
            if by_place and number == START:
                x, y = x - low[value[i]], y - low[value[j]]
            same[shared] &= x == y
        return np.asarray(same)

    @cached_property
    def way(self) -> Ints:
        """The thread partition of each access: ALL, FIRST, BY_ROWS, BY_COLUMNS or BY_PANELS.

        This mirrors the loops of the native backend.  A step without a kernel runs on one thread.
        """
        a, s = self.f.accesses, self.f.steps
        kernel = np.where(s.kind == Kind.GEMM, 1 + (s.transposed & 1), 0)
        alone = (s.kind < Kind.LOOP) | (s.kind == Kind.SCAN)
        way = np.where(alone, Axis.NONE, s.partition)
        found = np.asarray(SHARED[kernel[a.step], way[a.step], a.pattern])
        across = self._across()
        if len(across):
            found[self._repeated(across)] = ALL
            found[across] = FIRST
        return found

    def _across(self) -> Ints:
        """Return stores across the direction of a loop: the first thread makes them at the end."""
        a, s = self.f.accesses, self.f.steps
        some = np.flatnonzero(
            (a.use == Use.WRITE) & (a.pattern != Pattern.EACH) & (a.pattern != Pattern.WHOLE)
        )
        step, pattern = a.step[some], a.pattern[some]
        by = s.partition[step]
        down = (s.by_columns[step] == 1) | ((s.reduced[step] == Axis.ROWS) & (by != Axis.ROWS))
        row = (pattern == Pattern.ROW) & ((by != Axis.ROWS) | down)
        column = (
            (pattern == Pattern.COLUMN) & ((by != Axis.COLUMNS) | ~down) & ~_is_one(s.rows[step])
        )
        return np.asarray(some[row | column | (pattern == Pattern.ONE)])

    def _repeated(self, across: Ints) -> Bools:
        """Return the loads that the first thread repeats for stores across, besides all others."""
        a = self.f.accesses
        repeated = np.zeros(self.f.end + 1, bool)
        repeated[a.step[across[a.pattern[across] != Pattern.ONE]]] = True
        repeated[:-1][self.f.steps.partition == Axis.NONE] = False
        loads = (a.use == Use.READ) & ((a.pattern == Pattern.ROW) | (a.pattern == Pattern.COLUMN))
        return np.asarray(repeated[a.step] & loads)

    def key(self, i: Ints) -> tuple[Ints, ...]:
        """Return the numbers in which accesses that share rows or columns must agree.

        They are the size in powers of N, the address of the first row or column, the bytes from row
        to row for the largest batch, for one row and for one row more than the largest batch, those
        of a column, and those of an element of the product whose panels they are.
        """
        f, a, way = self.f, self.f.accesses, self.way[i]
        b, s, step, buffer, by_rows = f.buffers, f.steps, a.step[i], a.buffer[i], way == BY_ROWS
        size = np.where(by_rows[:, None], s.rows[step], s.columns[step])
        item = b.item[buffer]
        start = f.base[b.block[buffer]] + b.offset[buffer]
        start = start + np.where(by_rows, 0, b.shift[buffer] * item)
        apart = np.where(
            ~by_rows & ((a.pattern[i] == Pattern.COLUMN) | _is_one(s.rows[step])), 0, item
        )
        strides = (apart * self.pitch(i, n) for n in (f.capacity, *self._others))
        unit = np.where(by_rows, 0, item)
        panel = np.where(way == BY_PANELS, s.item[step], 0)
        return *size.T, start, *strides, unit, panel

    @property
    def _others(self) -> tuple[int, int]:
        """The rows for which formulas of the second power must agree besides the largest batch."""
        return 1, self.f.capacity + 1

    def pitch(self, i: Ints, n: int) -> Ints:
        """Return the elements from row to row of accesses, with n rows."""
        f, a = self.f, self.f.accesses
        step, pattern = a.step[i], a.pattern[i]
        columns = size_at(f.steps.columns, n)[step]
        columns = np.where(pattern == Pattern.LEFT, size_at(f.steps.depth, n)[step], columns)
        columns = np.where(pattern == Pattern.ROW, 1, columns)
        pitch = f.buffers.pitch[a.buffer[i]]
        return np.asarray(np.where(pitch > 0, pitch, columns))

    def same_element(self, load: Ints, store: Ints) -> Bools:
        """Return whether a step's load reads, element by element, what its store writes.

        In a single row, or column, its number does not matter, unless there are sums over the other
        axis: their results are stored after all of it.  A loop reads a single number before all
        else.
        """
        f, a = self.f, self.f.accesses
        here, there = a.buffer[load], a.buffer[store]
        same = np.ones(len(load), bool)
        for x in (f.low, *f.elements.T, f.buffers.item):
            same &= x[here] == x[there]
        ordered = np.ones(len(load), bool)
        for x, y in zip(self._order(load), self._order(store), strict=True):
            ordered &= x == y
        loop = f.steps.kind[a.step[load]] == Kind.LOOP
        return np.asarray(same & (ordered | (loop & (a.pattern[load] == Pattern.ONE))))

    def _order(self, i: Ints) -> tuple[Ints, ...]:
        """Return whether accesses depend on row and column, and the elements between rows."""
        a, s = self.f.accesses, self.f.steps
        step, pattern = a.step[i], a.pattern[i]
        loop, reduced = s.kind[step] == Kind.LOOP, s.reduced[step]
        one_row = loop & (reduced != Axis.COLUMNS) & _is_one(s.rows[step])
        one_column = loop & (reduced != Axis.ROWS) & _is_one(s.columns[step])
        down = np.where(one_row, 0, DEPENDS[pattern, 0])
        across = np.where(one_column, 0, DEPENDS[pattern, 1])
        pitches = (self.pitch(i, n) for n in (self.f.capacity, *self._others))
        return down, across, *(np.where(down == 1, pitch, 0) for pitch in pitches)

    # ------------------------------------------------------------------ examples

    def example(self, i: int, j: int) -> tuple[int, int, int, int] | None:
        """Return a thread count, an address, and two threads there, of accesses i, j; or None."""
        f, a = self.f, self.f.accesses
        x, y = int(a.buffer[i]), int(a.buffer[j])
        low, high = int(max(f.low[x], f.low[y])), int(min(f.high[x], f.high[y]))
        addresses = np.arange(low, high, max((high - low) // 4096, 1))
        for threads in range(2, 9):
            one, other = self.owners(i, addresses, threads), self.owners(j, addresses, threads)
            one = np.where(one < 0, np.where(other == 0, 1, 0), one)
            other = np.where(other < 0, np.where(one == 0, 1, 0), other)
            differ = np.flatnonzero(one != other)
            if len(differ):
                k = int(differ[0])
                return threads, int(addresses[k]), int(one[k]), int(other[k])
        return None

    def owners(self, i: int, addresses: Ints, threads: int) -> Ints:
        """Return the thread of an access that touches each address; -1 if all do."""
        f, way = self.f, int(self.way[i])
        if way in (ALL, FIRST):
            return np.full(len(addresses), -1 if way == ALL else 0)
        numbers = self.key(np.array([i]))
        *_, start, stride, _, _, item, panel = (int(x[0]) for x in numbers)
        size = size_at(np.array([x[0] for x in numbers[:3]]), f.capacity)
        offset = addresses - start
        if way == BY_ROWS:
            number = offset // max(stride, 1)
        else:
            number = (offset % stride if stride else offset) // item
        unit = UNITS.get(way) or PANEL_BYTES // panel
        units = -(-int(size) // unit)
        ends = np.arange(1, threads + 1) * units // threads
        mine = np.searchsorted(ends, number // unit, side="right")
        return np.asarray(np.minimum(mine, threads - 1))
