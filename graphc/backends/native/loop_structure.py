"""The structure of a loop's code: passes over the elements, shares of threads, blocks of columns.

A reduction is known after a pass over all the elements that it reduces; steps that depend on it
wait for the next pass, which recomputes from memory the values of the elements that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from graphc.backends.native.ir import Function, Range, Value
from graphc.backends.native.vectors import Vectors
from graphc.ir.expr import Body, Broadcast, Step, Store, join
from graphc.kernels.kernel import LANES, Loop, Partition

REDUCTIONS = ("sum", "max")
THREAD_ARGUMENTS = (("i64", "%n"), ("i64", "%tid"), ("i64", "%threads"))
"""The last arguments of a kernel's function: the batch, the thread, and how many share it."""


@dataclass(frozen=True)
class Phase:
    """One pass over the elements."""

    reductions: tuple[int, ...]
    """The steps that this pass reduces: sums and maxima."""
    stores: tuple[Store, ...]
    """The stores of each element; only the last pass has any."""
    steps: tuple[int, ...]
    """The steps to compute for each element, in order; not the reductions of earlier passes."""


def phases(body: Body) -> list[Phase]:
    """Return the passes in order; an empty list if no reduction or store needs one."""
    ready = _ready(body)
    stores = stores_at(body, "each")
    levels = [ready[number] for number in reductions(body)]
    levels += [ready[s.step] + _reduces(body.steps[s.step]) for s in stores]
    found = []
    for level in range(max(levels, default=-1) + 1):
        reduced = tuple(r for r in reductions(body) if ready[r] == level)
        written = stores if level == max(levels) else ()
        roots = [body.steps[r].args[0] for r in reduced] + [s.step for s in written]
        found.append(Phase(reduced, written, needed(body, roots)))
    return found


def reductions(body: Body) -> list[int]:
    """Return the numbers of the steps that sum or find the largest."""
    return [number for number, step in enumerate(body.steps) if _reduces(step)]


def needed(body: Body, roots: Iterable[int]) -> tuple[int, ...]:
    """Return `roots` and the steps that they need, in order; reductions count as known."""
    found: set[int] = set()
    todo = list(roots)
    while todo:
        number = todo.pop()
        if number not in found and not _reduces(body.steps[number]):
            found.add(number)
            todo.extend(body.steps[number].args)
    return tuple(sorted(found))


def stores_at(body: Body, *levels: Broadcast) -> tuple[Store, ...]:
    """Return the stores that happen once for each element, row or column, or once in all.

    A value that varies more than its store, such as the number of the only row, is stored as
    often as it is computed.
    """
    return tuple(
        s for s in body.stores if join(s.broadcast, body.steps[s.step].broadcast) in levels
    )


def as_one_row(kernel: Loop) -> Loop:
    """Return the kernel of a single row with a column's values as its elements'."""
    return _with_spans(kernel, {"column": "each"})


def as_one_column(kernel: Loop) -> Loop:
    """Return the kernel of a single column with a row's values as its elements'."""
    return _with_spans(kernel, {"row": "each", "column": "one"})


def _with_spans(kernel: Loop, broadcasts: dict[Broadcast, Broadcast]) -> Loop:
    steps = tuple(
        s._replace(broadcast=broadcasts.get(s.broadcast, s.broadcast)) for s in kernel.body.steps
    )
    stores = tuple(
        s._replace(broadcast=broadcasts.get(s.broadcast, s.broadcast)) for s in kernel.body.stores
    )
    return replace(kernel, body=Body(steps, stores))


def _ready(body: Body) -> list[int]:
    """Return for each step the first pass that can compute it: the reductions on its path."""
    ready: list[int] = []
    for step in body.steps:
        ready.append(max((ready[a] + _reduces(body.steps[a]) for a in step.args), default=0))
    return ready


def _reduces(step: Step) -> bool:
    return step.op in REDUCTIONS


BLOCK = 64
"""The unit of columns at which threads split, and which one call of Philox serves."""

Masks = Sequence[Value | None]
"""For each vector of a block the mask of the lanes that exist; None if all do."""
Carried = Sequence[tuple[str, Value]]
Visit = Callable[[Value | int, Masks, list[Value]], Sequence[Value]]
"""A writer of a block's code: from its first column, masks and carried values to the new ones."""


def _share(function: Function, count: Value | int, unit: int) -> Range:
    """Return the range of a thread in `count` items that are split at multiples of `unit`."""
    units = _divided(function, function.add(count, unit - 1), unit)
    ends = []
    for thread in ("%tid", function.add("%tid", 1)):
        part = function.value(f"udiv i64 {function.mul(thread, units)}, %threads")
        ends.append(function.mul(part, unit))
    return ends[0], function.smaller(ends[1], count)


def each_index(
    function: Function, sizes: Sequence[Value], body: Callable[[list[Value]], None]
) -> None:
    """Emit `body(index)` for a thread's part of all indices in dimensions of these sizes."""
    total: Value = "1"
    for size in sizes:
        total = function.mul(total, size)
    first, last = (
        function.value(f"udiv i64 {function.mul(thread, total)}, %threads")
        for thread in ("%tid", function.add("%tid", 1))
    )
    function.loop(first, last, 1, lambda number, _: body(_index(function, number, sizes)))


def _index(function: Function, number: Value, sizes: Sequence[Value]) -> list[Value]:
    """Emit the index in each dimension of a number in C order."""
    if not sizes:
        return []
    found: list[Value] = []
    for size in reversed(sizes[1:]):
        found.append(function.value(f"urem i64 {number}, {size}"))
        number = function.value(f"udiv i64 {number}, {size}")
    return [number, *reversed(found)]


def alone(function: Function, body: Callable[[], None]) -> None:
    """Emit code that only the first thread runs."""
    function.when(function.value("icmp eq i64 %tid, 0"), body)


def own(
    function: Function, count: Value | int, unit: int, split: bool
) -> tuple[Value | int, Value | int]:
    """Return the range of a dimension of `count` that a thread runs: its share, or all of it."""
    return _share(function, count, unit) if split else (0, count)


def in_thread(function: Function, split: Partition, body: Callable[[], None]) -> None:
    """Emit the body, for the first thread alone if nothing is split."""
    if split == "none":
        alone(function, body)
    else:
        body()


def block_size(body: Body) -> int:
    """Return the columns of a block: as many as a call of Philox serves, or one vector.

    Loops over single vectors are as fast as unrolled ones: the processor overlaps them.
    """
    return BLOCK if draws(body) else LANES


def draws(body: Body) -> bool:
    """Return whether a step draws random numbers."""
    return any(step.op == "philox" for step in body.steps)


def blocks(
    vectors: Vectors,
    start: Value | int,
    end: Value | int,
    visit: Visit,
    carried: Carried = (),
    *,
    size: int = LANES,
    unit: int = 1,
) -> list[Value]:
    """Visit the columns from `start` to `end` in blocks of `size`; return the last carried values.

    The last block has masks, and no vectors at all past an `end` that is known.  `unit` divides
    both `start` and `end`.
    """
    function = vectors.function
    if isinstance(start, int) and isinstance(end, int):
        return _static_blocks(vectors, start, end, visit, carried, size)
    inner: Masks = [None] * (size // LANES)
    even = unit % size == 0
    rest = 0 if even else function.value(f"and i64 {function.sub(end, start)}, {size - 1}")
    full = function.sub(end, rest)
    values = function.loop(start, full, size, lambda c, v: visit(c, inner, v), carried)
    if even:
        return values

    def last(column: Value, values: list[Value]) -> Sequence[Value]:
        left = function.sub(end, column)
        masks = [vectors.mask_below(function.sub(left, lane)) for lane in range(0, size, LANES)]
        return visit(column, masks, values)

    types = [type for type, _ in carried]
    return function.loop(full, end, size, last, list(zip(types, values, strict=True)))


def _static_blocks(
    vectors: Vectors, start: int, end: int, visit: Visit, carried: Carried, size: int
) -> list[Value]:
    full = start + (end - start) // size * size
    inner = static_masks(vectors, size)
    values = [value for _, value in carried]
    if full - start == size:
        values = list(visit(start, inner, values))
    elif full > start:
        values = vectors.function.loop(start, full, size, lambda c, v: visit(c, inner, v), carried)
    if full < end:
        values = list(visit(full, static_masks(vectors, end - full), values))
    return values


def static_masks(vectors: Vectors, columns: int) -> list[Value | None]:
    """Return the masks of a block of `columns` columns."""
    masks: list[Value | None] = [None] * (columns // LANES)
    if columns % LANES:
        masks.append(vectors.mask_below(columns % LANES))
    return masks


def _divided(function: Function, count: Value | int, unit: int) -> Value | int:
    if isinstance(count, int) or not count.startswith("%"):
        return int(count) // unit
    return function.value(f"udiv i64 {count}, {unit}")
