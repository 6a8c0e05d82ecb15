"""The code of a register tile: scalars times vectors for each of k, then the body."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from graphc.backends.native.elements import Elements, Known, Place, matrices
from graphc.backends.native.gemm_sizes import Tile
from graphc.backends.native.ir import Function, Module, Value
from graphc.backends.native.registers import element_type
from graphc.backends.native.vectors import Vectors
from graphc.kernels.body import Span, Step

Strides = tuple[int, int]
"""The number of elements from row to row, and from p to p."""


def emit_tile(module: Module, tile: Tile, rows: int, vectors: int) -> str:
    """Return the function that multiplies `rows` scalars by `vectors` vectors for each of k.

    out[i, :] = sum over p of s[i * row + p * step] * v[p * pitch :], where the rows of `out` are
    `vectors` vectors wide.  One accumulator an element, from zero, in the order of p.  Only
    `count` rows of s exist: the others repeat the last one.
    """

    def emit(f: Function) -> None:
        v, last = Vectors(f, tile.lanes), f.sub("%count", 1)
        offsets = [f.mul("%row", f.smaller(i, last)) for i in range(rows)]
        steps = Steps(v, tile.dtype, vectors, offsets, "%step")
        for i, x in enumerate(steps.run(("%s", "%v"), "%pitch", "%k", 1)):
            v.store(x, f.address("%out", i * v.lanes, steps.element), tile.dtype)

    key = ("tile", tile.dtype, tile.lanes, rows, vectors)
    arguments = "ptr %s, i64 %row, i64 %step, i64 %count, ptr %v, i64 %pitch, ptr %out, i64 %k"
    return module.function("tile", arguments, emit, key)


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
            even, state = f.even(k, unroll), list(zip(types, carried, strict=True))
            carried = f.loop(0, even, unroll, several, state)
        state = list(zip(types, carried, strict=True))
        return f.loop(even, k, 1, lambda _, x: self._step(x, pitch), state)[2:]

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


OF_PANEL = "i64 %column, i64 %columns, i64 %m, i64 %n"
"""The last arguments of functions that run the body: the first column of a panel, how many of its
columns exist, the rows of the whole product, and those of the batch."""

ROWS_TOGETHER = 8
"""The rows shorter than a vector that are read before the first of them is written: the memory that
is read may be updated in place, and a load waits for a store just before it that it partly
overlaps."""

Products = Callable[[int, int], Value]
"""A function that returns one vector of products, by row (counted from the first) and vector."""


class Epilogue:
    """The body on rows of a panel, in a function whose arguments end with `OF_PANEL`."""

    def __init__(self, elements: Elements, vectors: int, masked: bool) -> None:
        """Emit what does not depend on the row.

        The panel has `vectors` vectors.  If `masked`, only its first `%columns` columns exist.
        """
        v = elements.vectors
        self.elements, self.f, self.body = elements, v.function, elements.body
        self.dtypes, numbers = matrices(self.body), range(len(self.body.steps))
        spans: tuple[Span, ...] = ("one", "column", "row", "each")
        self.steps = {span: elements.of_span(numbers, span) for span in spans}
        self.ones: Known = {}
        elements.evaluate(self.steps["one"], self.ones, Place())
        self.places: list[Place] = []
        self.columns: list[dict[int, Value]] = []
        for lane in range(0, vectors * v.lanes, v.lanes):
            mask = v.mask_below(self.f.sub("%columns", lane)) if masked else None
            place, values = Place(first="%column", lane=lane, mask=mask), dict(self.ones)
            elements.evaluate(self.steps["column"], values, place)
            self.places.append(place)
            self.columns.append(values)

    @property
    def together(self) -> int:
        """Return how many rows are read before the first of them is written."""
        reads = any(s.op == "load" and s.span == "each" for s in self.body.steps)
        return ROWS_TOGETHER if reads and self.places[-1].mask is not None else 1

    def rows(self, first: Value, count: int, product: Products, apart: int = 1) -> None:
        """Evaluate `count` rows, each `apart` from the one before, then store all of them.

        So no load waits for a store.
        """
        elements, done = self.elements, []
        start = elements.lines(first, "%column")
        for i in range(count):
            row = Place(self.f.add(first, i * apart), self._lines(start, i * apart))
            of_row = dict(self.ones)
            elements.evaluate(self.steps["row"], of_row, row)
            for j, (at, of_column) in enumerate(zip(self.places, self.columns, strict=True)):
                values = of_column | of_row
                place = replace(at, row=row.row, lines=row.lines, special=_product(product, i, j))
                elements.evaluate(self.steps["each"], values, place)
                done.append((values, place))
        for values, place in done:
            elements.store(self.body.stores, values, place)

    def _lines(self, start: Mapping[str, Value], rows: int) -> dict[str, Value]:
        """Emit the addresses `rows` rows below `start`: at fixed distances, which are free."""
        pitch = self.elements.pitch
        return {
            buffer: self.f.address(line, self.f.mul(rows, pitch[buffer]), element_type(dtype))
            for (buffer, dtype), line in zip(self.dtypes.items(), start.values(), strict=True)
        }


def _product(product: Products, i: int, j: int) -> Callable[[Step, Place], Value]:
    return lambda step, place: product(i, j)
