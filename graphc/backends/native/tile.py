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

    `rows` divides the chunk by which threads share rows.
    """

    dtype: str
    lanes: int
    rows: int
    vectors: int

    @property
    def width(self) -> int:
        """Columns of a full tile."""
        return self.lanes * self.vectors

    @property
    def heights(self) -> tuple[int, ...]:
        """Rows of the tiles that tile any number of rows: halves down to 1."""
        return tuple(self.rows >> i for i in range(self.rows.bit_length()))

    def vectors_of(self, columns: int) -> int:
        """How many vectors hold so many columns."""
        return -(-columns // self.lanes)


def choose_tile(dtype: str, bits: int) -> Tile:
    """The tile for vector registers of `bits`: 32 registers of 512 bits, else 16."""
    lanes = bits // (8 * ITEMSIZE[dtype])
    return Tile(dtype, lanes, 8, 2) if bits == 512 else Tile(dtype, lanes, 4, 3)


TILE_ARGUMENTS = (
    ("ptr", "%s"),
    ("ptr", "%v"),
    ("i64", "%pitch"),
    ("ptr", "%out"),
    ("i64", "%k"),
    ("ptr", "%ahead"),
    ("i64", "%apart"),
    ("i64", "%shift"),
)


def emit_tile(
    module: Module, tile: Tile, rows: int, vectors: int, strides: tuple[int, int]
) -> str:
    """The function that multiplies `rows` scalars by `vectors` vectors for each of k.

    out[i, :] = sum over p of s[i * row + p * step] * v[p * pitch :], where (row, step) are the
    `strides` and the rows of `out` are `vectors` vectors wide.  One accumulator an element, from
    zero, in the order of p.  The strides are constants: as registers they cost an addition a load.
    Meanwhile it asks for the lines of a full tile's width at ahead[(p >> shift) * apart].
    """
    key = ("tile", tile.dtype, tile.lanes, rows, vectors, strides)
    name = module.known(key)
    if name is not None:
        return name
    name = module.name("tile", key)
    function = Function(name, TILE_ARGUMENTS, attributes="#1")
    _Emitter(Vectors(module, function, tile.lanes), tile, rows, vectors, strides).emit()
    module.add(function)
    return name


class _Emitter:
    """The text of one tile."""

    UNROLL = 2

    def __init__(
        self, v: Vectors, tile: Tile, rows: int, vectors: int, strides: tuple[int, int]
    ) -> None:
        self.v, self.f, self.rows, self.vectors = v, v.function, rows, vectors
        self.dtype, self.element = tile.dtype, element_type(tile.dtype)
        self.offsets = [strides[0] * i for i in range(rows)]
        self.step = strides[1]
        self.per_line = LINE // ITEMSIZE[tile.dtype]
        self.wide = tile.width

    def emit(self) -> None:
        """The loop over k, what is left of it, and the stores."""
        type = self.v.type(self.dtype)
        state: list[tuple[str, Value]] = [("ptr", "%s"), ("ptr", "%v")]
        state += [(type, "zeroinitializer")] * (self.rows * self.vectors)
        even = self.f.value(f"and i64 %k, {-self.UNROLL}")
        carried = self.f.loop(0, even, self.UNROLL, self._steps(self.UNROLL), state)
        state = [(t, x) for (t, _), x in zip(state, carried, strict=True)]
        carried = self.f.loop(even, "%k", 1, self._steps(1), state)
        for i, x in enumerate(carried[2:]):
            place = self.f.address("%out", i * self.v.lanes, self.element)
            self.v.store(x, place, self.dtype)
        self.f.ret()

    def _steps(self, count: int):  # type: ignore[no-untyped-def]
        def body(p: Value, carried: list[Value]) -> list[Value]:
            if count > 1:
                self._ask(p)
            for _ in range(count):
                carried = self._step(carried)
            return carried

        return body

    def _ask(self, p: Value) -> None:
        row = self.f.value(f"lshr i64 {p}, %shift")
        place = self.f.address("%ahead", self.f.mul(row, "%apart"), self.element)
        self.v.module.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        for j in range(0, self.wide, self.per_line):
            line = self.f.address(place, j, self.element)
            self.f.do(f"call void @llvm.prefetch.p0(ptr {line}, i32 0, i32 2, i32 1)")

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
