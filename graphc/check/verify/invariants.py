"""Rules about single buffers and steps: bounds, alignment, and one whole write before each read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphc.check.certificate import Axis, Ints, Kind, Pattern, Space, Use
from graphc.check.verify.facts import (
    ALIGNMENT,
    Bools,
    Counterexample,
    Facts,
    always_at_most,
    size_at,
    size_product,
)

INSIDE = "every buffer lies within its memory"
ALIGNED = "buffers are aligned"
ALIASES = "an alias is part of its value"
KERNELS = "a kernel touches a whole buffer and no more"
SPLITTING = "no sum is partitioned"


def inside(f: Facts) -> Iterator[Counterexample]:
    """Yield buffers that reach outside their block, such as the arena, a state or a feed."""
    b = f.buffers
    limit = f.base + size_at(f.blocks.size, f.capacity)
    out = (f.high > limit[b.block]) | (b.offset < 0) | (b.shift < 0)
    for i in np.flatnonzero(out).tolist():
        size = int(limit[b.block[i]] - f.base[b.block[i]])
        yield Counterexample(INSIDE, f"{f.buffer_text(i)} ends past byte {size:,}")
    columns = size_at(b.columns, f.capacity)
    wide = (b.pitch > 0) & (b.shift + columns > b.pitch)
    for i in np.flatnonzero(wide).tolist():
        yield Counterexample(
            INSIDE,
            f"{b.names[i]!r} is columns {b.shift[i]}..{b.shift[i] + columns[i]} of {b.pitch[i]}",
        )


def alignment(f: Facts) -> Iterator[Counterexample]:
    """Yield slots not at multiples of 64 bytes, and buffers not at multiples of their elements."""
    b = f.buffers
    for i in np.flatnonzero(f.slots.offset % ALIGNMENT != 0).tolist():
        yield Counterexample(
            ALIGNED,
            f"slot {f.slots.names[i]!r} starts at arena byte {f.slots.offset[i]:,}",
            (f"that is not a multiple of {ALIGNMENT}",),
        )
    gradient = (f.space == Space.GRADIENT) & (b.offset % ALIGNMENT != 0)
    for i in np.flatnonzero(gradient | (b.offset % b.item != 0)).tolist():
        unit = ALIGNMENT if gradient[i] else int(b.item[i])
        yield Counterexample(
            ALIGNED, f"{f.buffer_text(i)} does not start at a multiple of its unit, {unit}"
        )


def aliases(f: Facts) -> Iterator[Counterexample]:
    """Yield aliases that, for some batch, reach outside their value or have another item size."""
    b = f.buffers
    own = np.arange(len(b.root))
    root = b.root
    fits = (b.block == b.block[root]) & (b.offset == b.offset[root]) & (b.item == b.item[root])
    wide = b.rows * b.pitch[:, None] + b.columns
    wide[:, 0] += b.shift - b.pitch
    reach = np.where(b.pitch[:, None] > 0, wide, f.elements)
    fits &= always_at_most(reach, f.elements[root], f.capacity)
    dense = _same(b.rows * b.pitch[:, None], f.elements[root])  # the matrix that a view is cut of
    fits &= (root[root] == root) & ((b.pitch == 0) | dense)
    for i in np.flatnonzero(~fits & (root != own)).tolist():
        yield Counterexample(
            ALIASES,
            f"{f.buffer_text(i)} is an alias of {f.buffer_text(int(root[i]))}",
            (
                f"it has {_size(f.elements[i])} elements of {b.item[i]} bytes, "
                f"that has {_size(f.elements[root[i]])} of {b.item[root[i]]}",
            ),
        )


def kernels(f: Facts) -> Iterator[Counterexample]:
    """Yield accesses of kernels that for some batch do not fit their buffer.

    The elements that follow from the sizes of a kernel must be all elements of the buffer; those
    read through a window must be some of them.
    """
    a, s = f.accesses, f.steps
    stacked = s.partition[a.step] == Axis.MATRICES
    stacked &= (a.use == Use.READ) | (s.kind[a.step] == Kind.LOOP)  # chains write whole buffers
    alone = (s.kind < Kind.LOOP) | (s.kind == Kind.SCAN)
    misplaced = alone[a.step] != (a.pattern == Pattern.WHOLE)
    misplaced = (s.kind[a.step] == Kind.BARRIER) | (
        misplaced & ~(stacked & (a.pattern == Pattern.WHOLE))
    )
    misplaced |= (s.kind[a.step] == Kind.GEMM) & (a.use == Use.WRITE) & (a.pattern != Pattern.EACH)
    for i in np.flatnonzero(misplaced).tolist():
        yield Counterexample(
            KERNELS, f"{f.step_of(i)} touches {f.buffer_of(i)} by {Pattern(a.pattern[i]).word!r}"
        )
    wanted, has = _touched(f), f.elements[a.buffer]
    bad = ~_same(wanted, has) & (a.pattern != Pattern.WHOLE) & (a.pattern != Pattern.WINDOW)
    bad |= (a.pattern == Pattern.WINDOW) & ~always_at_most(wanted, has, f.capacity)
    for i in [*np.flatnonzero(bad).tolist(), *_of_other_width(f)]:
        yield Counterexample(
            KERNELS,
            f"{f.step_of(i)} touches {_size(wanted[i])} elements of "
            f"{f.buffer_of(i)}, which has {_size(has[i])}",
        )


def _touched(f: Facts) -> Ints:
    """Return the elements that each access touches by the sizes of its kernel."""
    s, a = f.steps, f.accesses
    sizes = np.ones((len(Pattern), f.end, 3), np.int64)
    sizes[Pattern.ONE] = 1, 0, 0
    sizes[Pattern.ROW], sizes[Pattern.COLUMN] = s.rows, s.columns
    sizes[Pattern.EACH] = size_product(s.rows, s.columns)
    sizes[Pattern.LEFT], sizes[Pattern.RIGHT] = (
        size_product(s.rows, s.depth),
        size_product(s.depth, s.columns),
    )
    found = sizes[a.pattern, a.step]
    through = a.pattern == Pattern.WINDOW
    found[through] = a.reach[through]
    return found


def _of_other_width(f: Facts) -> list[int]:
    """Return accesses to some columns of a matrix by kernels with another number of columns."""
    a, b, s = f.accesses, f.buffers, f.steps
    cut = np.flatnonzero((b.pitch[a.buffer] > 0) & (a.pattern != Pattern.WHOLE))
    step, pattern = a.step[cut], a.pattern[cut]
    transposed = (
        np.where(pattern == Pattern.LEFT, s.transposed[step] & 1, (s.transposed[step] & 2) >> 1) > 0
    )
    width = s.columns[step]
    for factor, outer in ((Pattern.LEFT, s.rows), (Pattern.RIGHT, s.columns)):
        inner = s.depth[step]
        across = np.where((transposed == (factor == Pattern.LEFT))[:, None], outer[step], inner)
        width = np.where((pattern == factor)[:, None], across, width)
    return [int(i) for i in cut[~_same(width, b.columns[a.buffer[cut]])]]


def partitions(f: Facts) -> Iterator[Counterexample]:
    """Yield loops whose reduction axis is partitioned among threads.

    A sum over an axis must be one thread's; a gemm is partitioned by rows or columns.
    """
    s = f.steps
    bad = (s.kind == Kind.LOOP) & (s.reduced != Axis.NONE) & (s.partition == s.reduced)
    for i in np.flatnonzero(bad).tolist():
        axis = "rows" if s.reduced[i] == Axis.ROWS else "columns"
        yield Counterexample(
            SPLITTING,
            f"{f.step_text(i)} sums over {axis}, and its {axis} are partitioned",
            ("each thread would have the sum of its own part only",),
        )


def _same(a: Ints, b: Ints) -> Bools:
    return np.asarray((a == b).all(axis=-1))


def _size(size: Ints) -> str:
    fixed, *factors = map(int, size)
    rows = [f"{factor}*{n}" for factor, n in zip(factors, ("N", "N*N"), strict=True) if factor]
    return " + ".join(rows if not fixed else [str(fixed), *rows]) if rows else f"{fixed:,}"


# ------------------------------------------------------------------ values

DEFINED = "every read is of a defined value"
WRITERS = "every value has one writer"
GIVEN = "feeds and constants are not written"
STATES = "a state is written by its update alone"


def given(f: Facts) -> Iterator[Counterexample]:
    """Yield writes to values that exist before the program."""
    a = f.accesses
    wrong = f.writes[f.initial[f.value[f.writes]]]
    for i in wrong.tolist():
        space = Space(f.space[a.buffer[i]]).word
        yield Counterexample(GIVEN, f"{f.step_of(i)} writes the {space} {f.buffer_of(i)}")


def defined(f: Facts) -> Iterator[Counterexample]:
    """Yield reads that precede a write of their value, and results that no step writes."""
    a = f.accesses
    first, last = f.written
    reads = np.flatnonzero(a.use == Use.READ)
    value = f.value[reads]
    bad = ~f.initial[value] & (last[value] < 0) | (last[value] >= a.step[reads])
    for i in reads[bad].tolist():
        v, step = int(f.value[i]), int(a.step[i])
        writer = "no step writes it" if last[v] < 0 else f"{f.step_text(int(last[v]))} writes it"
        yield Counterexample(
            DEFINED,
            f"{f.step_text(step)} reads {f.buffer_of(i)} before it is written",
            (writer, *_boundary(f, step, int(first[v]))),
        )
    for named in (f.tables.outputs, f.tables.gradients):
        found = f.buffers.root[named.buffer]
        for i in np.flatnonzero(~f.initial[found] & (last[found] < 0)).tolist():
            name, v = named.names[i], int(found[i])
            yield Counterexample(DEFINED, f"{name!r} is {f.buffer_text(v)}, which no step writes")


def _boundary(f: Facts, reader: int, writer: int) -> tuple[str, ...]:
    boundary = f.tables.boundary
    if reader < boundary <= writer < f.end:
        return (f"the last read is in the forward pass, which ends before step {boundary}",)
    return ()


def writers(f: Facts) -> Iterator[Counterexample]:
    """Yield values that are not written once and whole, by one step or in parts by several."""
    a, b = f.accesses, f.buffers
    count = np.bincount(f.value[f.writes], minlength=len(b.root))
    whole = (f.elements == f.elements[b.root]).all(axis=-1)
    odd = (count > 1)[f.value[f.writes]] | ~whole[a.buffer[f.writes]]
    parts: dict[int, list[int]] = {}
    for i in f.writes[odd].tolist():
        parts.setdefault(int(f.value[i]), []).append(i)
    for v, found in parts.items():
        yield from _parts(f, v, found)


def _parts(f: Facts, v: int, found: list[int]) -> Iterator[Counterexample]:
    """Yield the faults of the writes of one value, of which each may have some of its columns."""
    a, b = f.accesses, f.buffers
    found.sort(key=lambda i: (int(b.shift[a.buffer[i]]), int(a.step[i])))
    pitch = int(b.pitch[a.buffer[found[0]]])
    width, end = pitch or int(size_at(b.columns[v], f.capacity)), 0
    for i, before in zip(found, [-1, *found], strict=False):
        view = int(a.buffer[i])
        start = int(b.shift[view])
        whole = bool((f.elements[view] == f.elements[v]).all())
        if b.pitch[view] != pitch or not (pitch or whole):
            yield Counterexample(
                WRITERS,
                f"{f.step_of(i)} writes {f.buffer_text(view)}, which is neither "
                f"all nor some columns of {f.buffer_text(v)}",
            )
        if start < end:
            other, step = int(a.step[before]), int(a.step[i])
            yield Counterexample(
                WRITERS,
                f"{f.step_text(other)} and {f.step_text(step)} both write {f.buffer_text(v)}",
                (f.shared(view, int(a.buffer[before])),),
            )
        if start > end:
            yield _gap(f, v, end, start)
        end = start + int(size_at(b.columns[view], f.capacity))
    if end < width:
        yield _gap(f, v, end, width)


def _gap(f: Facts, v: int, start: int, end: int) -> Counterexample:
    sentence = f"no step writes columns {start}..{end} of {f.buffer_text(v)}"
    return Counterexample(DEFINED, sentence)


def states(f: Facts) -> Iterator[Counterexample]:
    """Yield states that end without their next value, and writes of other values to states."""
    a = f.accesses
    ends, updates = f.next_states, f.tables.updates
    for i in np.flatnonzero(ends < 0).tolist():
        yield Counterexample(
            STATES,
            f"state {updates.names[i]!r} never gets its next value "
            f"{f.buffer_text(int(updates.buffer[i]))}",
            ("that is not in the state's memory, and no step copies it there",),
        )
    into = f.writes[f.space[a.buffer[f.writes]] == Space.STATE]
    due = np.zeros(len(f.buffers.root), bool)
    due[ends[ends >= 0]] = True
    bad = ~due[f.value[into]]
    for i in into[bad].tolist():
        yield Counterexample(
            STATES,
            f"{f.step_of(i)} writes {f.buffer_of(i)}, which is not the next value of that state",
        )
    late = a.step[into] >= f.tables.boundary
    for i in into[late].tolist():
        yield Counterexample(
            STATES,
            f"{f.step_of(i)} writes {f.buffer_of(i)} in the backward pass",
            ("forward(train=True) ends before it, and would not advance the state",),
        )
