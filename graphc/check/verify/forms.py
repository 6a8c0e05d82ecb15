"""The check that the certificate is well formed, and that every buffer lies where it may."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphc.check.certificate.tables import (
    BARRIER,
    COLUMN,
    EACH,
    GEMM,
    LEFT,
    LOOP,
    MATRICES,
    NONE,
    ONE,
    READ,
    RIGHT,
    ROW,
    ROWS,
    SPANS,
    WHOLE,
    WINDOW,
    WRITE,
    Ints,
)
from graphc.check.verify.facts import ALIGNMENT, GRADIENT, Bools, Facts, at, times
from graphc.check.verify.report import Counterexample
from graphc.check.verify.words import Words

INSIDE = "every buffer lies within its memory"
ALIGNED = "buffers are aligned"
ALIASES = "an alias is part of its value"
KERNELS = "a kernel touches a whole buffer and no more"
SPLITTING = "threads split no sum"


def inside(f: Facts) -> Iterator[Counterexample]:
    """Yield buffers that reach outside the arena, the gradients, a state, a feed or a constant."""
    b, words = f.buffers, Words(f)
    limit = f.base + at(f.blocks.size, f.capacity)
    out = (f.high > limit[b.block]) | (b.offset < 0) | (b.shift < 0)
    for i in np.flatnonzero(out).tolist():
        size = int(limit[b.block[i]] - f.base[b.block[i]])
        yield Counterexample(INSIDE, f"{words.buffer(i)} ends past byte {size:,}")
    columns = at(b.columns, f.capacity)
    wide = (b.pitch > 0) & (b.shift + columns > b.pitch)
    for i in np.flatnonzero(wide).tolist():
        yield Counterexample(
            INSIDE,
            f"{b.names[i]!r} is columns {b.shift[i]}..{b.shift[i] + columns[i]} of {b.pitch[i]}",
        )


def alignment(f: Facts) -> Iterator[Counterexample]:
    """Yield slots not at multiples of 64 bytes, and buffers not at multiples of their elements."""
    b, words = f.buffers, Words(f)
    for i in np.flatnonzero(f.slots.offset % ALIGNMENT != 0).tolist():
        yield Counterexample(
            ALIGNED,
            f"slot {f.slots.names[i]!r} starts at arena byte {f.slots.offset[i]:,}",
            (f"that is not a multiple of {ALIGNMENT}",),
        )
    gradient = (f.space == GRADIENT) & (b.offset % ALIGNMENT != 0)
    for i in np.flatnonzero(gradient | (b.offset % b.item != 0)).tolist():
        unit = ALIGNMENT if gradient[i] else int(b.item[i])
        yield Counterexample(
            ALIGNED, f"{words.buffer(i)} does not start at a multiple of its unit, {unit}"
        )


def aliases(f: Facts) -> Iterator[Counterexample]:
    """Yield aliases that are not within their value, for every batch, in its units."""
    b, words = f.buffers, Words(f)
    own = np.arange(len(b.root))
    root = b.root
    fits = (b.block == b.block[root]) & (b.offset == b.offset[root]) & (b.item == b.item[root])
    for n in {1, f.capacity}:  # sizes are linear in N: what holds at both ends holds between
        long = at(f.elements, n)
        wide = b.shift + (at(b.rows, n) - 1) * b.pitch + at(b.columns, n)
        fits &= np.where(b.pitch > 0, wide, long) <= long[root]
    dense = _same(b.rows * b.pitch[:, None], f.elements[root])  # the matrix that a view is cut of
    fits &= (root[root] == root) & ((b.pitch == 0) | dense)
    for i in np.flatnonzero(~fits & (root != own)).tolist():
        yield Counterexample(
            ALIASES,
            f"{words.buffer(i)} is said to show {words.buffer(int(root[i]))}",
            (
                f"it has {_size(f.elements[i])} elements of {b.item[i]} bytes, "
                f"that has {_size(f.elements[root[i]])} of {b.item[root[i]]}",
            ),
        )


def kernels(f: Facts) -> Iterator[Counterexample]:
    """Yield accesses of a kernel that do not fit their buffer, for some batch.

    The part that a kernel touches by its sizes must be its buffer; a part read through a window
    must be within it.
    """
    a, s, words = f.accesses, f.steps, Words(f)
    stacked = (s.split[a.step] == MATRICES) & (a.use == READ)
    misplaced = (s.kind[a.step] < LOOP) != (a.span == WHOLE)
    misplaced = (s.kind[a.step] == BARRIER) | (misplaced & ~(stacked & (a.span == WHOLE)))
    misplaced |= (s.kind[a.step] == GEMM) & (a.use == WRITE) & (a.span != EACH)
    for i in np.flatnonzero(misplaced).tolist():
        yield Counterexample(
            KERNELS,
            f"{words.step(int(a.step[i]))} touches {words.buffer(int(a.buffer[i]))} "
            f"by {SPANS[a.span[i]]!r}",
        )
    wanted, has = _touched(f), f.elements[a.buffer]
    bad = ~_same(wanted, has) & (a.span != WHOLE) & (a.span != WINDOW)
    for n in {1, f.capacity}:  # sizes are linear in N: what holds at both ends holds between
        bad |= (a.span == WINDOW) & (at(wanted, n) > at(has, n))
    for i in [*np.flatnonzero(bad).tolist(), *_of_other_width(f)]:
        yield Counterexample(
            KERNELS,
            f"{words.step(int(a.step[i]))} touches {_size(wanted[i])} elements of "
            f"{words.buffer(int(a.buffer[i]))}, which has {_size(has[i])}",
        )


def _touched(f: Facts) -> Ints:
    """Return the elements that each access touches by the sizes of its kernel."""
    s, a = f.steps, f.accesses
    sizes = np.ones((len(SPANS), f.end, 2), np.int64)
    sizes[ONE] = 1, 0
    sizes[ROW], sizes[COLUMN] = s.rows, s.columns
    sizes[EACH] = times(s.rows, s.columns)
    sizes[LEFT], sizes[RIGHT] = times(s.rows, s.depth), times(s.depth, s.columns)
    found = sizes[a.span, a.step]
    through = a.span == WINDOW
    found[through] = a.reach[through]
    return found


def _of_other_width(f: Facts) -> list[int]:
    """Return accesses to columns of a wider matrix whose kernel assumes more or fewer columns."""
    a, b, s = f.accesses, f.buffers, f.steps
    cut = np.flatnonzero((b.pitch[a.buffer] > 0) & (a.span != WHOLE))
    step, span = a.step[cut], a.span[cut]
    turned = np.where(span == LEFT, s.transposed[step] & 1, (s.transposed[step] & 2) >> 1) > 0
    width = s.columns[step]
    for factor, outer in ((LEFT, s.rows), (RIGHT, s.columns)):
        inner = s.depth[step]
        across = np.where((turned == (factor == LEFT))[:, None], outer[step], inner)
        width = np.where((span == factor)[:, None], across, width)
    return [int(i) for i in cut[~_same(width, b.columns[a.buffer[cut]])]]


def splits(f: Facts) -> Iterator[Counterexample]:
    """Yield loops that split their reduction axis between threads.

    A sum over an axis must be one thread's; a gemm is split by rows or columns.
    """
    s, words = f.steps, Words(f)
    bad = (s.kind == LOOP) & (s.reduced != NONE) & (s.split == s.reduced)
    for i in np.flatnonzero(bad).tolist():
        axis = "rows" if s.reduced[i] == ROWS else "columns"
        yield Counterexample(
            SPLITTING,
            f"{words.step(i)} sums along {axis}, and threads split its {axis}",
            ("each thread would have the sum of its own part only",),
        )


def _same(a: Ints, b: Ints) -> Bools:
    return np.asarray((a == b).all(axis=-1))


def _size(pair: Ints) -> str:
    fixed, per_row = int(pair[0]), int(pair[1])
    if not per_row:
        return f"{fixed:,}"
    return f"{per_row}*N" if not fixed else f"{fixed} + {per_row}*N"
