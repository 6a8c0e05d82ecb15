"""Packed blocks of bfloat16, and their products: by registers of tiles, or by multiply-adds.

A block has 32 terms; the last one is filled up by 0.  Those of a lie in tiles of 16 rows of 16
pairs, a word of 32 bits each; those of b in rows of pairs, one of each column.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.backends.native.gemm_frame import Frame, Panel, packing
from graphc.backends.native.gemm_pairs import BITS, pack_panel, split
from graphc.backends.native.gemm_tile import UNROLL, Steps, Tile
from graphc.backends.native.ir import Function, Module, Range, Value
from graphc.backends.native.loop_structure import clear, each_vector
from graphc.backends.native.target import TILES
from graphc.backends.native.tile_registers import configure, emit_tile_products, release
from graphc.backends.native.vectors import Vectors
from graphc.ir.forms import BLOCK
from graphc.kernels.kernel import CHUNK

PAIRS = BLOCK // 2
"""The words of a row of a tile, and the rows of a block of b."""
TILE = CHUNK * PAIRS
"""The words of a tile of a."""


def in_registers(frame: Frame, rows: Range, emit: Callable[[], object]) -> None:
    """Emit code for a range of rows, if it has any, which may use registers of tiles."""
    tiles = frame.tile.words == TILES
    for _ in frame.f.only_if(frame.f.less(*rows)):
        if tiles:
            configure(frame.f, frame.products)
        emit()
        if tiles:
            release(frame.f)


def add_products(
    panel: Panel,
    a: tuple[Value, Value],
    b: Value,
    blocks: Value | int,
    sums: Value,
    p: Value | int,
) -> None:
    """Emit the call that adds the products of blocks of packed factors to the sums of a panel.

    `a` is the address of the rows of a, and their number.  The sums begin at 0 if p is 0.
    """
    frame = panel.frame
    added = _emit_added(frame.module, frame.tile, panel.vectors)
    frame.f.call(added, *a, b, blocks, sums, p)


def _emit_added(module: Module, tile: Tile, vectors: int) -> str:
    """Return the function that adds products of `%k` blocks of packed factors to sums.

    Of `%count` rows of a at `%s` the tiles of 16 follow each other; `%sums` and the rows of b at
    `%v` are `vectors` vectors wide.
    """

    def emit(f: Function) -> None:
        if tile.words == TILES:
            emit_tile_products(f, vectors)
        else:
            _emit_multiply_adds(f, tile, vectors)

    arguments = "ptr %s, i64 %count, ptr %v, i64 %k, ptr %sums, i64 %p"
    return module.function("added", arguments, emit, ("blocks", tile, vectors))


def _emit_multiply_adds(f: Function, tile: Tile, vectors: int) -> None:
    """Emit the same products without tiles, a few rows at a time."""
    v, height, width = Vectors(f, tile.lanes), tile.height(vectors), vectors * tile.lanes
    halves = [_Half(v, vectors, height, half) for half in (0, 1)]
    size = f.mul(f.mul(f.ceiling("%count", CHUNK), CHUNK), width)
    f.when(f.less("%p", 1), lambda: clear(v, "%sums", size, tile.dtype))
    for i in f.each(0, "%count", height):
        lane = f.value(f"and i64 {i}, {CHUNK - 1}")
        first = f.mul(f.add(f.mul(f.sub(i, lane), "%k"), lane), PAIRS)
        places = [
            f.address("%sums", f.add(f.mul(i, width), j * v.lanes), "float")
            for j in range(height * vectors)
        ]
        for p in f.each(0, "%k"):
            s = f.address("%s", f.add(first, f.mul(p, TILE)), "i32")
            b = f.address("%v", f.mul(p, PAIRS * width), "i32")
            parts = [half.run((s, b), str(width), str(PAIRS), UNROLL) for half in halves]
            for place, even, odd in zip(places, *parts, strict=True):
                both = v.add(even, odd, tile.dtype)
                v.store(v.add(v.load(place, tile.dtype), both, tile.dtype), place, tile.dtype)


class _Half(Steps):
    """The emitter of the sums of one term of each pair: the first is 0, the second 1."""

    def __init__(self, v: Vectors, vectors: int, height: int, half: int) -> None:
        super().__init__(v, "float32", vectors, [i * PAIRS for i in range(height)], "1")
        self.half = half

    def _step(self, carried: list[Value], pitch: Value) -> list[Value]:
        """Emit the products of one pair's term."""
        f, v, (s, b, *sums) = self.f, self.v, carried
        places = [f.address(b, j * v.lanes, "i32") for j in range(self.vectors)]
        right = [self._number(v.load(place, "int32")) for place in places]
        for i, offset in enumerate(self.offsets):
            left = self._number(v.load_splat(f.address(s, offset, "i32"), "int32"))
            for j, vector in enumerate(right):
                number = i * self.vectors + j
                sums[number] = self.add(left, vector, sums[number])
        return [f.address(s, 1, "i32"), f.address(b, pitch, "i32"), *sums]

    def _number(self, words: Value) -> Value:
        return self.v.bitcast(split(self.v, words)[1 - self.half], "int32", self.dtype)


def pack_blocks(
    panel: Panel, source: Value, pitch: Value | int, target: Value, k: Value | int
) -> None:
    """Emit the packing of k rows of a panel of b, which are stored at `source`, in whole blocks."""
    pack_panel(panel, source, pitch, target, k)
    fill(panel, target, k)


def fill(panel: Panel, packed: Value, k: Value | int) -> None:
    """Emit zeros behind the pairs of k packed rows of b, up to the end of their last block."""
    f, frame = panel.frame.f, panel.frame
    width, pairs = panel.vectors * frame.tile.lanes, f.ceiling(k, 2)
    left = f.sub(f.mul(f.ceiling(k, BLOCK), PAIRS), pairs)
    at = f.address(packed, f.mul(pairs, width), "i32")
    clear(Vectors(f, frame.tile.lanes), at, f.mul(left, width), "float32")


def emit_pack_tiles(module: Module, transposed: bool) -> str:
    """Return the function that packs k factors of 16 rows of a, tile after tile.

    Of `%rows` rows only so many exist.  `transposed`, a is stored as rows of k.
    """

    def emit(f: Function) -> None:
        (_pack_columns if transposed else _pack_rows)(f)

    return module.function("pack", packing("%rows"), emit, ("pack blocks", transposed))


def _pack_rows(f: Function) -> None:
    """Emit the copy of the blocks of 16 rows; the last row is repeated."""
    last = f.sub("%rows", 1)
    starts = [f.mul(f.smaller(row, last), "%pitch") for row in range(CHUNK)]
    copy_rows(f, [f.address("%from", start, "i16") for start in starts], "%to", "%k")


def copy_rows(f: Function, rows: list[Value], target: Value, k: Value | int) -> None:
    """Emit the copy of k neighbours at each of 16 addresses, block by block."""
    v = Vectors(f, BLOCK)
    for p, mask in each_vector(v, k):
        for i, row in enumerate(rows):
            x = v.load(f.address(row, p, "i16"), BITS, mask)
            v.store(x, f.address(target, f.add(f.mul(p, CHUNK), i * BLOCK), "i16"), BITS)


def _pack_columns(f: Function) -> None:
    """Emit the transposition of blocks of rows of k; what does not exist is 0."""
    v = Vectors(f, CHUNK)

    def block(p: Value, mask_of: Callable[[Value], Value | None]) -> None:
        numbers = [f.add(p, i) for i in range(BLOCK)]
        rows = [f.address("%from", f.mul(number, "%pitch"), "i16") for number in numbers]
        masks = [mask_of(number) for number in numbers]
        transpose_rows(v, rows, masks, f.address("%to", f.mul(f.quotient(p, 2), CHUNK), "i32"))

    def existing(number: Value) -> Value:
        return v.mask_below(f.select(f.less(number, "%k"), "i64", "%rows", 0))

    whole, all_rows = f.round_down("%k", BLOCK), f.less(CHUNK - 1, "%rows")
    full = f.select(all_rows, "i64", whole, 0)
    f.loop(0, full, BLOCK, lambda p, _: block(p, lambda number: None))
    f.loop(full, "%k", BLOCK, lambda p, _: block(p, existing))


def transpose_rows(v: Vectors, rows: list[Value], masks: list[Value | None], target: Value) -> None:
    """Emit the tile of 16 neighbours at each of 32 addresses, one for each term of a block."""
    f = v.function
    terms = [
        v.cast(v.load(row, BITS, mask), BITS, "int32")
        for row, mask in zip(rows, masks, strict=True)
    ]
    words = []
    for first, second in zip(terms[::2], terms[1::2], strict=True):
        upper = v.binary("shl", second, v.const(16, "int32"), "int32")
        words.append(v.binary("or", first, upper, "int32"))
    for i, line in enumerate(v.transpose(words, "int32")):
        v.store(line, f.address(target, i * PAIRS, "i32"), "int32")
