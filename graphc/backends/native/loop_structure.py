"""The structure of a loop's code: thread partition, blocks of columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from graphc.backends.body import Known, phases
from graphc.backends.native.elements import Elements
from graphc.backends.native.ir import Function, Value
from graphc.backends.native.vectors import Vectors, element_type
from graphc.ir.expr import Body, Broadcast, Store
from graphc.ir.tensor_type import Shape
from graphc.kernels.kernel import Loop

THREAD_ARGUMENTS = "i64 %n, i64 %tid, i64 %threads"
"""The last arguments of a kernel's function: the batch, the thread, and how many share it."""


def as_one_row(kernel: Loop) -> Loop:
    """Return a kernel of a single row with broadcast kind column replaced by each."""
    return _with_kinds(kernel, {"column": "each"})


def as_one_column(kernel: Loop) -> Loop:
    """Return a kernel of a single column with broadcast kind row replaced by each."""
    return _with_kinds(kernel, {"row": "each", "column": "one"})


def _with_kinds(kernel: Loop, broadcasts: dict[Broadcast, Broadcast]) -> Loop:
    steps = tuple(
        s._replace(broadcast=broadcasts.get(s.broadcast, s.broadcast)) for s in kernel.body.steps
    )
    stores = tuple(
        s._replace(broadcast=broadcasts.get(s.broadcast, s.broadcast)) for s in kernel.body.stores
    )
    return replace(kernel, body=Body(steps, stores))


BLOCK = 64
"""The columns of a block: threads share whole blocks, and a call of Philox serves one."""

Masks = Sequence[Value | None]
"""For each vector of a block the mask of the lanes that exist; None if all do."""
Carried = Sequence[tuple[str, Value]]
Visit = Callable[[Value | int, Masks, list[Value]], Sequence[Value]]
"""An emitter of a block: from its first column, masks and carried values to the new ones."""


def each_index(function: Function, sizes: Sequence[Value]) -> Iterator[list[Value]]:
    """Emit a loop over a thread's part of all indices in dimensions of these sizes."""
    total: Value = "1"
    for size in sizes:
        total = function.mul(total, size)
    for number in function.each(*function.thread_part(total)):
        yield function.indices(number, sizes[1:]) if sizes else []


def moved(
    f: Function, pointer: Value, element: str, strides: Shape, place: Sequence[Value]
) -> Value:
    """Emit the address of a matrix of a stack; `strides` are the elements from one to the next."""
    for index, stride in zip(place, strides, strict=True):
        if stride != 0:
            pointer = f.address(pointer, f.mul(index, f.size(stride)), element)
    return pointer


def on_first_thread(function: Function, body: Callable[[], None]) -> None:
    """Emit code that only the first thread runs."""
    function.when(function.value("icmp eq i64 %tid, 0"), body)


class LoopNest:
    """The base of the emitters of loops; `stores` happen once for each row, or each column."""

    def __init__(
        self, elements: Elements, kernel: Loop, known: Known, stores: Sequence[Store] = ()
    ) -> None:
        """Prepare; `known` has the values that are the same for all elements."""
        self.elements, self.kernel, self.known, self.stores = elements, kernel, known, stores
        self.function = elements.function
        self.phases = phases(kernel.body)

    def emit(self) -> None:
        """Emit the loops of a thread; of the first one alone if the thread partition is "none"."""
        if self.kernel.partition == "none":
            on_first_thread(self.function, self.loops)
        else:
            self.loops()

    def loops(self) -> None:
        """Emit the loops over the thread's part of the rows or columns."""
        raise NotImplementedError


def block_size(v: Vectors, *, many: bool) -> int:
    """Return the columns of a block: one vector or, if `many`, as many as a call of Philox serves.

    Loops over single vectors are as fast as unrolled ones: the processor overlaps them.
    """
    return BLOCK if many and not v.narrow else v.lanes


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
    size: int = 0,
    unit: int = 1,
) -> list[Value]:
    """Emit the columns from `start` to `end` in blocks of `size`; return the last carried values.

    A block is a vector if no size is given.

    The last block has masks, and no vectors at all past an `end` that is a literal.  `unit` divides
    both `start` and `end`.
    """
    function = vectors.function
    size = size or vectors.lanes
    inner: Masks = [None] * (size // vectors.lanes)
    divides = unit % size == 0
    rest = 0 if divides else function.remainder(function.sub(end, start), size)
    full = function.sub(end, rest)
    values = function.loop(start, full, size, lambda c, v: visit(c, inner, v), carried)

    def last(column: Value, values: list[Value]) -> Sequence[Value]:
        """Emit the last block, whose columns may be fewer."""
        left = function.sub(end, column)
        if not left.startswith("%"):
            return visit(column, static_masks(vectors, int(left)), values)
        lanes = range(0, size, vectors.lanes)
        masks = [vectors.mask_below(function.sub(left, lane)) for lane in lanes]
        return visit(column, masks, values)

    if divides:
        return values
    types = [type for type, _ in carried]
    return function.loop(full, end, size, last, list(zip(types, values, strict=True)))


def static_masks(vectors: Vectors, columns: int) -> list[Value | None]:
    """Return the masks of a block of `columns` columns."""
    masks: list[Value | None] = [None] * (columns // vectors.lanes)
    if columns % vectors.lanes:
        masks.append(vectors.mask_below(columns % vectors.lanes))
    return masks


def each_vector(v: Vectors, count: Value | int) -> Iterator[tuple[Value, Value | None]]:
    """Emit loops around the code for each vector of `count` elements; the last may be masked."""
    f = v.function
    full = f.round_down(count, v.lanes)
    for i in f.each(0, full, v.lanes):
        yield i, None
    rest = f.sub(count, full)
    for _ in f.only_if(f.less(0, rest)):
        yield full, v.mask_below(rest)


def copy(v: Vectors, source: Value, target: Value, count: Value | int, dtype: str) -> None:
    """Emit the copy of `count` neighbours in memory, which do not overlap the target."""
    f, element = v.function, element_type(dtype)
    for i, mask in each_vector(v, count):
        x = v.load(f.address(source, i, element), dtype, mask)
        v.store(x, f.address(target, i, element), dtype, mask)


def clear(v: Vectors, target: Value, count: Value | int, dtype: str) -> None:
    """Emit `count` zeros at an address, rounded up to full vectors."""
    f, element = v.function, element_type(dtype)
    for i in f.each(0, count, v.lanes):
        v.store(v.const(0, dtype), f.address(target, i, element), dtype)
