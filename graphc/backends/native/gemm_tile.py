"""Register tiles of matrix products: their sizes and their code.

A tile multiplies scalars by vectors for each of k; then the body runs on the sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.backends.native.ir import Function, Module, Value
from graphc.backends.native.target import TILES, WORDS, Words
from graphc.backends.native.vectors import Vectors, element_type
from graphc.ir.tensor_type import ITEMSIZE, Dim
from graphc.kernels.kernel import Gemm

LINE = 64
"""The bytes of a cache line."""
WIDEST = 64
"""The bytes of the widest vectors."""
UNROLL = 2
"""The values of k that a long loop of a tile takes at a time."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A register tile: `rows` scalars times `vectors` vectors of `lanes`, rows * vectors sums.

    Twice `rows` divides the chunk by which threads share rows; `vectors` are 2 or more.
    """

    dtype: str
    lanes: int
    rows: int
    vectors: int
    words: Words | None = None
    """The packed elements of narrow factors."""

    @property
    def width(self) -> int:
        """The columns of a full tile."""
        return self.lanes * self.vectors

    def height(self, vectors: int) -> int:
        """Return the rows of a full tile of `vectors` vectors.

        One vector takes twice the rows: fewer sums could not hide the latency of an addition.
        """
        return self.rows if vectors > 1 else 2 * self.rows

    def vectors_of(self, columns: int) -> int:
        """Return the number of vectors that hold `columns` columns."""
        return -(-columns // self.lanes)

    def for_last_panel(self, columns: int) -> Tile:
        """Return the tile for the columns beyond full panels.

        Its vectors are half as wide if that fills them better: 512 bits may take twice the time.
        Registers of tiles have one width.
        """
        if self.lanes * ITEMSIZE[self.dtype] != WIDEST or self.words == TILES:
            return self
        half = replace(self, lanes=self.lanes // 2)
        fits = half.vectors_of(columns) * half.lanes < self.vectors_of(columns) * self.lanes
        return half if fits else self


def choose_tile(dtype: str, bits: int, words: Words | None = None) -> Tile:
    """Return the tile for vector registers of `bits`: 32 registers of 512 bits, else 16.

    Without vectors, code is small.  `dtype` is that of the sums, `words` are of narrow factors.
    """
    if bits == 32:
        return Tile(dtype, 1, 2, 2, words)
    lanes = bits // (8 * ITEMSIZE[dtype])
    if words == TILES:
        return Tile(dtype, lanes, 8, 4, words)
    return Tile(dtype, lanes, 8, 2, words) if bits == 512 else Tile(dtype, lanes, 4, 3, words)


def tile_of(
    kernel: Gemm, bits: int, words: Mapping[str, Words] = WORDS, *, packed: bool = False
) -> Tile:
    """Return the tile of a product; `words` are those of narrow factors.

    If b is stored in panels, `packed`, registers of tiles have narrow ones: they read these faster,
    but wide ones are packed faster.
    """
    tile = choose_tile(kernel.dtype, bits, words.get(kernel.order or kernel.factor_dtype))
    return replace(tile, vectors=2) if packed and tile.words == TILES else tile


Strides = tuple[Dim, Dim]
"""The number of elements from row to row, and from one p to the next."""


def emit_tile(
    module: Module, tile: Tile, rows: int, vectors: int, columns: int | None = None
) -> str:
    """Return the function that multiplies `rows` scalars by `vectors` vectors for each of k.

    out[i, :] = sum over p of s[i * row + p * step] * v[p * pitch :], where the rows of `out` are
    `vectors` vectors wide.  One accumulator an element, from zero, in the order of p.  Only
    `count` rows of s exist: the others repeat the last one.  If `columns` are given, only so many
    elements of a row of v are read.
    """

    def emit(f: Function) -> None:
        """Emit the steps, and write the sums to the result."""
        v, last = Vectors(f, tile.lanes), f.sub("%count", 1)
        offsets = [f.mul("%row", f.smaller(i, last)) for i in range(rows)]
        rest = None if columns is None else v.mask_below(columns - (vectors - 1) * v.lanes)
        steps = Steps(v, tile.dtype, vectors, offsets, "%step", rest)
        for i, x in enumerate(steps.run(("%s", "%v"), "%pitch", "%k", 1)):
            v.store(x, f.address("%out", i * v.lanes, steps.element), tile.dtype)

    key = ("tile", tile.dtype, tile.lanes, rows, vectors, columns)
    arguments = "ptr %s, i64 %row, i64 %step, i64 %count, ptr %v, i64 %pitch, ptr %out, i64 %k"
    return module.function("tile", arguments, emit, key)


class Steps:
    """The emitter of the sums over k of scalars at `offsets` times some vectors."""

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
        full: Value = "0"
        if unroll > 1:
            full, state = f.round_down(k, unroll), list(zip(types, carried, strict=True))
            carried = f.loop(0, full, unroll, several, state)
        state = list(zip(types, carried, strict=True))
        return f.loop(full, k, 1, lambda _, x: self._step(x, pitch), state)[2:]

    def add(self, left: Value, right: Value, total: Value) -> Value:
        """Emit a sum with the product of two elements added."""
        return self.v.fma(left, right, total, self.dtype)

    def _step(self, carried: list[Value], pitch: Value) -> list[Value]:
        """Emit the products of one p: each vector times each scalar."""
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
                sums[number] = self.add(left, vector, sums[number])
        following = [
            self.f.address(s, self.step, self.element),
            self.f.address(v, pitch, self.element),
        ]
        return following + sums


PANEL_ARGUMENTS = "i64 %column, i64 %columns, i64 %m, i64 %n"
"""The last arguments of functions that run the body: the first column of a panel, how many of its
columns exist, the rows of the whole product, and those of the batch."""
