"""The code of a register tile: scalars times vectors for each of k, then the body."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.backends.native.gemm_sizes import Tile
from graphc.backends.native.ir import Function, Module, Value
from graphc.backends.native.registers import element_type
from graphc.backends.native.vectors import Leaf, Vectors
from graphc.ir.expr import Body, Broadcast, Step
from graphc.kernels.kernel import Gemm

Strides = tuple[int, int]
"""The number of elements from row to row, and from p to p."""

_ARGUMENTS = (
    ("ptr", "%s"),
    ("i64", "%row"),
    ("i64", "%step"),
    ("i64", "%count"),
    ("ptr", "%v"),
    ("i64", "%pitch"),
    ("ptr", "%out"),
    ("i64", "%k"),
)


def emit_tile(module: Module, tile: Tile, rows: int, vectors: int) -> str:
    """Return the function that multiplies `rows` scalars by `vectors` vectors for each of k.

    out[i, :] = sum over p of s[i * row + p * step] * v[p * pitch :], where the rows of `out` are
    `vectors` vectors wide.  One accumulator an element, from zero, in the order of p.  Only
    `count` rows of s exist: the others repeat the last one.
    """

    def emit(f: Function) -> None:
        v, last = Vectors(module, f, tile.lanes), f.sub("%count", 1)
        offsets = [f.mul("%row", f.smaller(i, last)) for i in range(rows)]
        steps = Steps(v, tile.dtype, vectors, offsets, "%step")
        for i, x in enumerate(steps.run(("%s", "%v"), "%pitch", "%k", 1)):
            v.store(x, f.address("%out", i * v.lanes, steps.element), tile.dtype)

    key = ("tile", tile.dtype, tile.lanes, rows, vectors)
    return module.function("tile", _ARGUMENTS, emit, key)


class Steps:
    """The products of scalars at `offsets` and some vectors, added up over k."""

    def __init__(
        self,
        v: Vectors,
        dtype: str,
        vectors: int,
        offsets: Sequence[Value | int],
        step: Value,
        last: Value | None = None,
    ) -> None:
        """Prepare; `step` leads to the scalars of the next p, `last` is the last vector's mask."""
        self.v, self.f, self.vectors, self.last = v, v.function, vectors, last
        self.dtype, self.element = dtype, element_type(dtype)
        self.offsets, self.step = offsets, step

    def run(
        self,
        places: tuple[Value, Value],
        pitch: Value,
        k: Value,
        unroll: int,
        before: Callable[[Value], object] = lambda p: None,
        start: Sequence[Value] | None = None,
    ) -> list[Value]:
        """Emit the sums, and return them row by row.

        `places` are the addresses of the first scalar and vector, `pitch` leads to the next vector.
        `before` emits code before every `unroll` steps, but for the last ones.  The sums begin with
        `start`, or zero.  A k not larger than `unroll` needs no loop.
        """
        f, type = self.f, self.v.type(self.dtype)
        if start is None:
            start = ["zeroinitializer"] * (len(self.offsets) * self.vectors)
        carried = [*places, *start]
        types = ["ptr", "ptr", *[type] * (len(carried) - 2)]

        def several(p: Value, carried: list[Value]) -> list[Value]:
            before(p)
            for _ in range(unroll):
                carried = self._step(carried, pitch)
            return carried

        if not k.startswith("%") and int(k) <= unroll:
            for _ in range(int(k)):
                carried = self._step(carried, pitch)
            return carried[2:]
        even: Value = "0"
        if unroll > 1:
            even = f.even(k, unroll)
            carried = f.loop(0, even, unroll, several, list(zip(types, carried, strict=True)))
        if even != k:
            state = list(zip(types, carried, strict=True))
            carried = f.loop(even, k, 1, lambda _, x: self._step(x, pitch), state)
        return carried[2:]

    def _step(self, carried: list[Value], pitch: Value) -> list[Value]:
        """Emit one p: each vector times each scalar."""
        s, v, *sums = carried
        masks = [None] * (self.vectors - 1) + [self.last]
        right = [
            self.v.load(self.f.address(v, j * self.v.lanes, self.element), self.dtype, mask)
            for j, mask in enumerate(masks)
        ]
        for i, offset in enumerate(self.offsets):
            left = self.v.load_splat(self.f.address(s, offset, self.element), self.dtype)
            for j, vector in enumerate(right):
                number = i * self.vectors + j
                sums[number] = self.v.fma(left, vector, sums[number], self.dtype)
        following = [
            self.f.address(s, self.step, self.element),
            self.f.address(v, pitch, self.element),
        ]
        return following + sums


EPILOGUE_ARGUMENTS = (
    ("ptr", "%products"),
    ("i64", "%row"),
    ("i64", "%rows"),
    ("i64", "%column"),
    ("i64", "%columns"),
    ("i64", "%m"),
    ("i64", "%n"),
)
"""The arguments after the buffers: the tile, its first row and column with the number of rows and
columns that exist, the rows of the whole product, and those of the batch."""

ROWS_TOGETHER = 8

Products = Callable[[int, int], Value]
"""A function that returns one vector of products, by row (counted from the first) and vector."""


@dataclass(frozen=True)
class Memory:
    """The buffers of a kernel: the argument of each, and the elements from one row to the next."""

    arguments: dict[str, Value]
    pitches: dict[str, int]

    @property
    def typed(self) -> list[tuple[str, Value]]:
        """The arguments with their types, as a function declares them."""
        return [("ptr", argument) for argument in self.arguments.values()]


def emit_epilogue(
    module: Module, kernel: Gemm, memory: Memory, tile: Tile, vectors: int, masked: bool
) -> str:
    """Emit the function that runs the body on `%rows` rows of a tile; return its name.

    The tile has `vectors` vectors.  If `masked`, only its first `%columns` columns exist.
    """

    def emit(f: Function) -> None:
        v, element = Vectors(module, f, tile.lanes), element_type(tile.dtype)
        epilogue = Epilogue(v, kernel, memory, vectors, masked)

        def rows(r: Value, count: int) -> None:
            start = f.address("%products", f.mul(r, vectors * tile.lanes), element)

            def product(i: int, j: int) -> Value:
                place = f.address(start, (i * vectors + j) * tile.lanes, element)
                return v.load(place, tile.dtype)

            epilogue.rows(f.add("%row", r), count, product)

        together = epilogue.together
        full = f.even("%rows", together)
        f.loop(0, full, together, lambda r, _: rows(r, together))
        if together > 1:
            f.loop(full, "%rows", 1, lambda r, _: rows(r, 1))

    return module.function("epilogue", [*memory.typed, *EPILOGUE_ARGUMENTS], emit)


def matrix_dtypes(body: Body) -> dict[str, str]:
    """Return the dtype of each buffer that the body reads or writes at each element."""
    dtypes = {s.buffer: s.dtype for s in body.steps if s.op == "load" and s.broadcast == "each"}
    return dtypes | {store.buffer: body.steps[store.step].dtype for store in body.stores}


def lines(f: Function, body: Body, memory: Memory, row: Value) -> dict[str, Value]:
    """Emit the address, in each matrix, of a row of the panel that begins at %column."""
    return {
        buffer: f.address(
            memory.arguments[buffer],
            f.add(f.mul(row, memory.pitches[buffer]), "%column"),
            element_type(dtype),
        )
        for buffer, dtype in matrix_dtypes(body).items()
    }


@dataclass(frozen=True)
class _Line:
    """A row: its number counted from the first row, and from the top.

    `start` has the address of the first row in each matrix, `apart` the distance of rows.
    """

    start: dict[str, Value]
    number: int
    row: Value
    apart: int


class Epilogue:
    """The body on rows of a panel, in a function that has `EPILOGUE_ARGUMENTS[3:]`."""

    def __init__(
        self, v: Vectors, kernel: Gemm, memory: Memory, vectors: int, masked: bool
    ) -> None:
        """Emit what does not depend on the row."""
        self.v, self.f, self.kernel, self.memory = v, v.function, kernel, memory
        self.body: Body = kernel.body
        self.offsets = [j * v.lanes for j in range(vectors)]
        self.masks: list[Value | None] = [
            v.mask_below(self.f.sub("%columns", o)) if masked else None for o in self.offsets
        ]
        self.ones: dict[int, Value] = {}
        v.evaluate(self.body, self._steps("one"), self.ones, self._leaf("0", 0))
        self.columns: list[dict[int, Value]] = []
        for j in range(vectors):
            values = dict(self.ones)
            v.evaluate(self.body, self._steps("column"), values, self._leaf("0", j))
            self.columns.append(values)

    @property
    def together(self) -> int:
        """Return how many rows are read before the first of them is written.

        Short rows lie within one vector of the next, and what is read may be updated in place
        under another name: a load just after a store that it partly overlaps waits until the
        store is done.
        """
        reads = any(s.op == "load" and s.broadcast == "each" for s in self.body.steps)
        return ROWS_TOGETHER if reads and self.masks[-1] is not None else 1

    def _steps(self, broadcast: Broadcast) -> Sequence[int]:
        return [n for n, step in enumerate(self.body.steps) if step.broadcast == broadcast]

    def rows(self, first: Value, count: int, product: Products, apart: int = 1) -> None:
        """Evaluate `count` rows, each `apart` from the one before, then store all of them.

        So no load waits for a store.
        """
        done: list[tuple[_Line, int, dict[int, Value]]] = []
        start = lines(self.f, self.body, self.memory, first)
        for i in range(count):
            line = _Line(start, i, self.f.add(first, i * apart), apart)
            of_row = dict(self.ones)
            self.v.evaluate(self.body, self._steps("row"), of_row, self._leaf(line.row, 0))
            for j, of_column in enumerate(self.columns):
                values = of_column | of_row
                leaf = self._leaf(line.row, j, line, product)
                self.v.evaluate(self.body, self._steps("each"), values, leaf)
                done.append((line, j, values))
        for line, j, values in done:
            for store in self.body.stores:
                dtype = self.body.steps[store.step].dtype
                place = self._place(store.buffer, line, j, dtype)
                self.v.store(values[store.step], place, dtype, self.masks[j])

    def _place(self, buffer: str, line: _Line, j: int, dtype: str) -> Value:
        """Emit the address of a vector of a matrix."""
        index = line.number * line.apart * self.memory.pitches[buffer] + self.offsets[j]
        return self.f.address(line.start[buffer], index, element_type(dtype))

    def _leaf(
        self, row: Value, j: int, line: _Line | None = None, product: Products | None = None
    ) -> Leaf:
        def leaf(step: Step) -> Value:
            if step.op == "load" and line and step.broadcast == "each":
                place = self._place(step.buffer, line, j, step.dtype)
                return self.v.load(place, step.dtype, self.masks[j])
            if step.op == "load":
                return self._load(step, row, j)
            if step.op == "product" and line and product:
                return product(line.number, j)
            return self._number(step, row, j)

        return leaf

    def _load(self, step: Step, row: Value, j: int) -> Value:
        dtype, element = step.dtype, element_type(step.dtype)
        base = self.memory.arguments[step.buffer]
        if step.broadcast == "column":
            place = self.f.address(base, self.f.add("%column", self.offsets[j]), element)
            return self.v.load(place, dtype, self.masks[j])
        if step.broadcast == "row":
            base = self.f.address(base, row, element)
        return self.v.load_splat(base, dtype)

    def _number(self, step: Step, row: Value, j: int) -> Value:
        """Emit the number of the row or of the columns, or how many rows or columns there are."""
        if step.op == "index" and step.broadcast == "row":
            return self._whole(row, step.dtype)
        if step.op == "index":
            first = self._whole(self.f.add("%column", self.offsets[j]), step.dtype)
            return self.v.add(first, self.v.lane_numbers(step.dtype), step.dtype)
        assert step.op == "size", f"{step.op} has no place in the body of a matrix product"
        if isinstance(step.value, int):
            return self._whole(self.f.mul("%n", step.value), step.dtype)
        return self._whole("%m" if step.value == "rows" else str(self.kernel.n), step.dtype)

    def _whole(self, number: Value, dtype: str) -> Value:
        """Emit a whole number in all lanes."""
        if not number.startswith("%"):
            return self.v.const(int(number), dtype)
        return self.v.cast(self.v.splat(number, "int64"), "int64", dtype)
