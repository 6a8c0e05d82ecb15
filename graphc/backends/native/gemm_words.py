"""Factors of int8 as words of 32 bits: how they are packed, and multiplied.

A word has 4 factors of one byte each, where one instruction adds the products of two words to a
sum; else 2 factors of 16 bits.  VNNI, that of x86, takes unsigned bytes on one side: a is packed
with 128 added, and the sums start at -128 times the sums of b's columns.  Integers wrap, so that no
order of the additions changes a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from graphc.backends.native.gemm_frame import Panel
from graphc.backends.native.gemm_tile import Tile
from graphc.backends.native.ir import Function, Module, Value
from graphc.backends.native.target import SDOT, VNNI, Words
from graphc.backends.native.vectors import Vectors

BYTES = 4
"""The bytes of a word."""
SHIFTS = 0x80808080 - (1 << 32)
"""A word of 128 in each byte: what the shift of a adds to a sum is the product of this and b."""


def words_of(tile: Tile) -> Words:
    """Return how the packed elements of a tile of int8 are multiplied."""
    assert tile.words is not None, "the tile is of int8"
    return tile.words


def add_words(v: Vectors, words: Words, a: Value, b: Value, total: Value) -> Value:
    """Emit total + the sum of the products of each word's factors; those of a are shifted."""
    f, type = v.function, v.type("int32")
    if words == VNNI:
        symbol = f"@llvm.{words.instruction}.{32 * v.lanes}"
        f.module.declare(f"declare {type} {symbol}({', '.join([type] * 3)})")
        return f.value(f"call {type} {symbol}({type} {total}, {type} {a}, {type} {b})")
    if words == SDOT:
        bytes_ = Vectors(f, BYTES * v.lanes)
        kind = bytes_.type("int8")
        symbol = f"@llvm.{words.instruction}.{v.mangled('int32')}.{bytes_.mangled('int8')}"
        f.module.declare(f"declare {type} {symbol}({type}, {kind}, {kind})")
        x, y = (f.value(f"bitcast {type} {each} to {kind}") for each in (a, b))
        return f.value(f"call {type} {symbol}({type} {total}, {kind} {x}, {kind} {y})")
    # LLVM knows this form as one instruction of x86: vpmaddwd.
    halves = Vectors(f, 2 * v.lanes)
    wide = []
    for x in (a, b):
        half = f.value(f"bitcast {type} {x} to {halves.type('int16')}")
        wide.append(halves.cast(half, "int16", "int32"))
    products = f.value(f"mul nsw {halves.type('int32')} {wide[0]}, {wide[1]}")
    even, odd = (
        halves.shuffle(products, "poison", range(first, halves.lanes, 2), "int32")
        for first in (0, 1)
    )
    return v.add(total, v.add(even, odd, "int32"), "int32")


def emit_pack_columns(module: Module, panel: Panel, last: int) -> str:
    """Return the function that packs `%words` words of the columns of a panel.

    The factors of a word are neighbours in a column; of the last word there are `last`, and the
    others are 0.  What a's shift adds to the sums is subtracted from `%start`.
    """
    tile, vectors = panel.frame.tile, panel.vectors
    words, width = words_of(tile), vectors * tile.lanes
    masks = [panel.counted - j * tile.lanes for j in range(vectors)]

    def emit(f: Function) -> None:
        """Emit the loop over words, and subtract the shift."""
        v = Vectors(f, tile.lanes)

        def pack(p: Value, totals: list[Value]) -> list[Value]:
            """Emit the packing of a word of each column, and return the sums of the factors."""
            found = []
            first = f.address("%from", f.mul(f.mul(p, words.factors), "%pitch"), "i8")
            for j, (columns, total) in enumerate(zip(masks, totals, strict=True)):
                mask = v.mask_below(columns) if columns < tile.lanes else None
                at = f.address(first, j * tile.lanes, "i8")
                x = load_word(v, words, at, "%pitch", last, mask)
                v.store(x, f.address("%to", f.add(f.mul(p, width), j * v.lanes), "i32"), "int32")
                shifted = v.const(SHIFTS, "int32")
                found.append(add_words(v, words, shifted, x, total) if words.shift else total)
            return found

        state = [(v.type("int32"), "zeroinitializer")] * vectors
        for j, total in enumerate(f.loop(0, "%words", 1, pack, state)):
            place = f.address("%start", j * tile.lanes, "i32")
            if words.shift:
                v.store(v.sub(v.load(place, "int32"), total, "int32"), place, "int32")

    key = ("pack int8", tile, vectors, panel.counted, last)
    arguments = "ptr %from, i64 %pitch, ptr %to, ptr %start, i64 %words"
    return module.function("pack", arguments, emit, key)


def load_word(
    v: Vectors, words: Words, at: Value, pitch: Value, rows: int, mask: Value | None
) -> Value:
    """Emit a vector of words of the first rows of bytes at an address; missing rows are 0."""
    f = v.function
    places = [f.address(at, f.mul(pitch, i), "i8") for i in range(rows)]
    return joined(v, [v.load(place, "int8", mask) for place in places], words.factors)


def joined(v: Vectors, rows: Sequence[Value], factors: int) -> Value:
    """Emit the words of some rows of bytes, the first one lowest."""
    bits = 32 // factors
    found: Value = "zeroinitializer"
    for i, row in enumerate(rows):
        x = v.cast(row, "int8", "int32")
        if i < factors - 1:
            x = v.binary("and", x, v.const((1 << bits) - 1, "int32"), "int32")
        x = v.binary("shl", x, v.const(i * bits, "int32"), "int32")
        found = v.binary("or", found, x, "int32")
    return found


def emit_pack_rows(
    module: Module, tile: Tile, run: int, reach: tuple[tuple[int, int], ...], k: int
) -> str:
    """Return the function that packs `%count` rows of k factors, `%pitch` apart.

    A row consists of runs of neighbours in memory, at the offsets of `reach`, a size and a stride
    for each dimension.  What lies beyond the last factor of a word is arbitrary; with a reach, the
    last run may be read and written up to a vector beyond its end.
    """
    words = words_of(tile)
    size, factor = -(-k // words.factors) * BYTES, BYTES // words.factors

    def emit(f: Function) -> None:
        """Emit the loop over rows."""

        def runs(axis: int, source: Value, target: Value) -> Value:
            """Emit the runs of the dimensions from `axis` on, and return where their words end."""
            if axis == len(reach):
                _pack_run(f, tile, source, target, run, bool(reach))
                return f.address(target, run * factor, "i8")
            count, step = reach[axis]

            def each(i: Value, carried: list[Value]) -> list[Value]:
                return [runs(axis + 1, f.address(source, f.mul(i, step), "i8"), *carried)]

            return f.loop(0, count, 1, each, [("ptr", target)])[0]

        for i in f.each(0, "%count"):
            source = f.address("%from", f.mul(i, "%pitch"), "i8")
            runs(0, source, f.address("%to", f.mul(i, size), "i8"))

    key = ("pack rows", words, tile.lanes, run, reach, k)
    return module.function("rows", "ptr %from, i64 %pitch, ptr %to, i64 %count", emit, key)


def _pack_run(
    f: Function, tile: Tile, source: Value, target: Value, count: int, beyond: bool
) -> None:
    """Emit the packing of neighbours, in ever smaller vectors: few processors mask bytes.

    The last one may reach `beyond` their end.
    """
    words = words_of(tile)
    factor = BYTES // words.factors

    def piece(lanes: int, i: Value, _: list[Value]) -> None:
        """Emit the packing of one vector."""
        v = Vectors(f, lanes)
        x = v.load(f.address(source, i, "i8"), "int8")
        to = f.address(target, f.mul(i, factor), "i8")
        if words.shift:  # added by the highest bit
            x = v.binary("xor", x, v.const(-128, "int8"), "int8")
        dtype = "int8" if words.factors == BYTES else "int16"
        v.store(v.cast(x, "int8", dtype), to, dtype)

    lanes, done = tile.lanes * words.factors, 0
    while done < count:
        rest = count - done
        if beyond and lanes // 2 < rest < lanes:
            rest = lanes
        full = rest // lanes * lanes
        f.loop(done, done + full, lanes, partial(piece, lanes))
        done, lanes = done + full, lanes // 2
