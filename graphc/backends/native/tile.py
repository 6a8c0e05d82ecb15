"""The register tile of the matrix product: rows x vectors of accumulators over all of k."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.backends.native.ir import Function, Module, Value
from graphc.backends.native.registers import element_type
from graphc.backends.native.vectors import Vectors
from graphc.tensor_type import ITEMSIZE

LINE = 64
"""Bytes that move between caches together."""


@dataclass(frozen=True, slots=True)
class Tile:
    """`rows` scalars meet `vectors` vectors of `lanes` elements: rows * vectors accumulators.

    Twice `rows` divides the chunk by which threads share rows; `vectors` are 2 or more.
    """

    dtype: str
    lanes: int
    rows: int
    vectors: int

    @property
    def width(self) -> int:
        """Columns of a full tile."""
        return self.lanes * self.vectors

    def heights(self, vectors: int) -> tuple[int, ...]:
        """The rows of tiles of so many vectors that cover any number of rows: halves down to 1.

        One vector takes twice the rows: fewer sums could not hide how long an addition takes.
        """
        rows = self.rows if vectors > 1 else 2 * self.rows
        return tuple(rows >> i for i in range(rows.bit_length()))

    def vectors_of(self, columns: int) -> int:
        """How many vectors hold so many columns."""
        return -(-columns // self.lanes)


def choose_tile(dtype: str, bits: int) -> Tile:
    """The tile for vector registers of `bits`: 32 registers of 512 bits, else 16."""
    lanes = bits // (8 * ITEMSIZE[dtype])
    return Tile(dtype, lanes, 8, 2) if bits == 512 else Tile(dtype, lanes, 4, 3)


Strides = tuple[int, int]
"""Elements from row to row, and from p to p."""

_ARGUMENTS = (
    ("ptr", "%s"),
    ("i64", "%row"),
    ("i64", "%step"),
    ("ptr", "%v"),
    ("i64", "%pitch"),
    ("ptr", "%out"),
    ("i64", "%k"),
)


def emit_tile(
    module: Module,
    tile: Tile,
    rows: int,
    vectors: int,
    strides: Strides | None = None,
    asks: int = 0,
    ragged: bool = False,
) -> str:
    """The function that multiplies `rows` scalars by `vectors` vectors for each of k.

    out[i, :] = sum over p of s[i * row + p * step] * v[p * pitch :], where the rows of `out` are
    `vectors` vectors wide.  One accumulator an element, from zero, in the order of p.

    Full tiles know the strides (row, step) as constants: in registers they cost an addition a
    load.  For each of `asks` they take three arguments more, and ask meanwhile for the lines of a
    full tile's width at ahead[(p >> shift) * apart]: spread over k, requests delay nothing.
    Where that is `ragged`, it begins amid a line and takes one more, but for the first.
    """
    key = ("tile", tile.dtype, tile.lanes, rows, vectors, strides, asks, ragged)
    name = module.known(key)
    if name is not None:
        return name
    name = module.name("tile", key)
    extra = [
        (type, f"%{stem}{i}")
        for i in range(asks)
        for type, stem in (("ptr", "ahead"), ("i64", "apart"), ("i64", "shift"))
    ]
    function = Function(name, [*_ARGUMENTS, *extra], attributes="#1")
    emitter = _Emitter(Vectors(module, function, tile.lanes), tile, rows, vectors, strides)
    emitter.asks, emitter.ragged = asks, ragged
    emitter.emit()
    module.add(function)
    return name


class _Emitter:
    """The text of one tile."""

    def __init__(
        self, v: Vectors, tile: Tile, rows: int, vectors: int, strides: Strides | None
    ) -> None:
        self.v, self.f, self.tile, self.vectors = v, v.function, tile, vectors
        self.dtype, self.element = tile.dtype, element_type(tile.dtype)
        row, step = ("%row", "%step") if strides is None else map(str, strides)
        self.step = step
        self.offsets = [self.f.mul(row, i) for i in range(rows)]
        self.unroll = 2 if strides else 1
        self.asks, self.ragged = 0, False

    def emit(self) -> None:
        """The loop over k, what is left of it, and the stores."""
        type = self.v.type(self.dtype)
        state: list[tuple[str, Value]] = [("ptr", "%s"), ("ptr", "%v")]
        state += [(type, "zeroinitializer")] * (len(self.offsets) * self.vectors)
        start: Value = "0"
        if self.unroll > 1:
            start = self.f.value(f"and i64 %k, {-self.unroll}")
            carried = self.f.loop(0, start, self.unroll, self._several, state)
            state = [(t, x) for (t, _), x in zip(state, carried, strict=True)]
        carried = self.f.loop(start, "%k", 1, lambda _, carried: self._step(carried), state)
        for i, x in enumerate(carried[2:]):
            place = self.f.address("%out", i * self.v.lanes, self.element)
            self.v.store(x, place, self.dtype)
        self.f.ret()

    def _several(self, p: Value, carried: list[Value]) -> list[Value]:
        for number in range(self.asks):
            self._ask(p, number)
        for _ in range(self.unroll):
            carried = self._step(carried)
        return carried

    def _ask(self, p: Value, number: int) -> None:
        """The first is for the second cache: it is used once, by packing."""
        row = self.f.value(f"lshr i64 {p}, %shift{number}")
        index = self.f.mul(row, f"%apart{number}")
        place = self.f.address(f"%ahead{number}", index, self.element)
        self.v.module.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        write, near = (0, 2) if number == 0 else (1, 3)
        columns = [*range(0, self.tile.width, LINE // ITEMSIZE[self.dtype])]
        if number and self.ragged:
            columns.append(self.tile.width - 1)
        for j in columns:
            line = self.f.address(place, j, self.element)
            self.f.do(f"call void @llvm.prefetch.p0(ptr {line}, i32 {write}, i32 {near}, i32 1)")

    def _step(self, carried: list[Value]) -> list[Value]:
        """One p: each vector by each scalar."""
        s, v, *sums = carried
        right = [
            self.v.load(self.f.address(v, j * self.v.lanes, self.element), self.dtype)
            for j in range(self.vectors)
        ]
        for i, offset in enumerate(self.offsets):
            left = self.v.load_splat(self.f.address(s, offset, self.element), self.dtype)
            for j, vector in enumerate(right):
                number = i * self.vectors + j
                sums[number] = self.v.fma(left, vector, sums[number], self.dtype)
        following = [
            self.f.address(s, self.step, self.element),
            self.f.address(v, "%pitch", self.element),
        ]
        return following + sums
