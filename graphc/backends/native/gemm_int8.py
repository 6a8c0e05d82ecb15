"""Products of int8 with sums in int32: both factors are packed as words of 32 bits.

A word has 4 factors of one byte each, where one instruction adds the products of two words to a
sum; else 2 factors of 16 bits.  VNNI, that of x86, takes unsigned bytes on one side: a is packed
with 128 added, and the sums start at -128 times the sums of b's columns.  Integers wrap, so that no
order of the additions changes a sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from graphc.backends.native.elements import Epilogue
from graphc.backends.native.gemm_frame import Frame, Panel
from graphc.backends.native.gemm_tile import PANEL_ARGUMENTS, UNROLL, Steps, Tile, WordScratch
from graphc.backends.native.gemm_windows import emit_image, places_of
from graphc.backends.native.ir import Function, Module, Range, Value
from graphc.backends.native.loop_structure import clear
from graphc.backends.native.target import SDOT, VNNI, Words
from graphc.backends.native.vectors import Vectors
from graphc.ir.forms import Window
from graphc.kernels.kernel import Convolution

BYTES = 4
"""The bytes of a word."""


class Int8:
    """The loops over blocks of rows, in each over panels of b, which are packed before."""

    def __init__(self, frame: Frame, scratch: WordScratch) -> None:
        self.frame, self.f, self.scratch = frame, frame.f, scratch
        self.packed = frame.workspace
        self.starts = frame.address(self.packed, scratch.words * scratch.row)
        self.block = frame.address(self.starts, scratch.row)
        self.image = frame.address(self.block, scratch.block_words)

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product for ranges of rows and panels."""
        f, kernel = self.f, self.frame.kernel
        over = self._images if isinstance(kernel, Convolution) else self._matrix

        def mine() -> None:
            self.frame.each_panel(panels, self._pack)
            over(rows, panels)

        f.when(f.less(*rows), mine)

    def _matrix(self, rows: Range, panels: Range) -> None:
        frame, k = self.frame, self.scratch.inner
        pack = _emit_pack_rows(frame.module, frame.tile, k, (), k)

        def block(first: Value, last: Value) -> None:
            row = self.f.address(frame.a, self.f.mul(first, frame.pitch_a), "i8")
            self.f.call(pack, row, frame.pitch_a, self.block, self.f.sub(last, first))

        self._blocks(*rows, "0", panels, block)

    def _images(self, rows: Range, panels: Range) -> None:
        """Emit the loop over images, of which copies are read, with zeros around them."""
        f, frame, kernel = self.f, self.frame, self.frame.kernel
        assert isinstance(kernel, Convolution)
        window = kernel.window
        v = Vectors(f, frame.tile.lanes * BYTES)
        if not window.is_direct:  # the zeros of the copy are written only once
            clear(v, self.image, self.scratch.image * BYTES, "int8")

        def image(number: Value, _: list[Value]) -> None:
            top, low, high = places_of(f, rows, number, window.count)

            def group(index: Value, _: list[Value]) -> None:
                first = f.add(f.mul(number, window.pixels), f.mul(index, window.channels))
                source = f.address(frame.a, first, "i8")
                f.call(emit_image(frame.module, v.lanes, "int8", window), source, self.image)
                start = f.mul(index, each)
                mine = f.larger(panels[0], start), f.smaller(panels[1], f.add(start, each))
                of_group = panels if window.groups == 1 else mine
                self._blocks(low, high, top, of_group, partial(self._pack_places, window))

            if window.groups == 1:
                group("0", [])
            else:
                f.loop(f.quotient(panels[0], each), f.ceiling(panels[1], each), 1, group)

        each = int(frame.panels) // window.groups
        f.loop(f.quotient(rows[0], window.count), f.ceiling(rows[1], window.count), 1, image)

    def _pack_places(self, window: Window, first: Value, last: Value) -> None:
        """Emit the packing of some places, line by line."""
        f, frame = self.f, self.frame
        step, across = window.steps[-1], window.places[-1]
        pack = _emit_pack_rows(frame.module, frame.tile, window.run, window.reach, window.depth)

        def line(number: Value, _: list[Value]) -> None:
            start = f.mul(number, across)
            low, high = f.larger(first, start), f.smaller(last, f.add(start, across))
            *at, _last = f.indices(low, window.places[1:])
            offset = f.mul(f.sub(low, start), step)
            for index, pitch in zip(at, window.steps[:-1], strict=True):
                offset = f.add(offset, f.mul(index, pitch))
            to = frame.address(self.block, f.mul(f.sub(low, first), self.scratch.words))
            f.call(pack, f.address(self.image, offset, "i8"), step, to, f.sub(high, low))

        f.loop(f.quotient(first, across), f.ceiling(last, across), 1, line)

    def _blocks(
        self,
        first: Value,
        last: Value,
        top: Value,
        panels: Range,
        pack: Callable[[Value, Value], None],
    ) -> None:
        """Emit blocks of rows, counted from `top`: their packing, and their product by panels."""
        f, size = self.f, WordScratch.BLOCK

        def block(start: Value, _: list[Value]) -> None:
            end = f.smaller(f.add(start, size), last)
            pack(start, end)
            body = partial(self._strip, f.add(top, start), f.add(top, end))
            self.frame.each_panel(panels, body)

        f.loop(first, last, size, block)

    def _at(self, panel: Panel) -> tuple[Value, Value]:
        """Emit the addresses of a packed panel, and of what its sums start at."""
        f, scratch, column = self.f, self.scratch, panel.column
        if scratch.groups > 1:
            group, inside = f.quotient(column, scratch.part), f.remainder(column, scratch.part)
            column = f.add(f.mul(group, scratch.row_of_part), inside)
        address = self.frame.address
        return address(self.packed, f.mul(column, scratch.words)), address(self.starts, column)

    def _strip(self, first: Value, last: Value, panel: Panel) -> None:
        frame = panel.frame
        own = "ptr %s, ptr %v, ptr %start, i64 %first, i64 %last"
        strip = frame.module.function(
            "strip",
            f"{frame.typed}, {own}, {PANEL_ARGUMENTS}",
            lambda f: _emit_strip(f, panel, self.scratch.words),
        )
        where = self.block, *self._at(panel), first, last
        self.f.call(strip, *frame.arguments.values(), *where, *panel.last_arguments)

    def _pack(self, panel: Panel) -> None:
        frame, k = panel.frame, self.scratch.inner
        pack = _emit_pack_columns(frame.module, panel, k)
        source = self.f.address(frame.b, panel.column, "i8")
        self.f.call(pack, source, frame.pitch_b, *self._at(panel))


def _emit_strip(f: Function, panel: Panel, words: int) -> None:
    """Emit the rows of a block times a panel: full tiles, then half of one, then single rows."""
    tile, vectors = panel.frame.tile, panel.vectors
    v, height = Vectors(f, tile.lanes), tile.height(vectors)
    epilogue = Epilogue(panel.frame.elements(v), vectors, panel.masked)
    starts = [v.load(f.address("%start", j * v.lanes, "i32"), "int32") for j in range(vectors)]
    row: Value = "%first"
    for size in dict.fromkeys((height, height // 2, 1)):
        steps = WordSteps(v, tile, vectors, [i * words for i in range(size)])

        def rows(i: Value, _: list[Value], size: int = size, steps: Steps = steps) -> None:
            s = f.address("%s", f.mul(f.sub(i, "%first"), words), "i32")
            pitch = str(vectors * v.lanes)
            sums = steps.run((s, "%v"), pitch, str(words), UNROLL, start=starts * size)
            epilogue.rows(i, size, lambda r, j: sums[r * vectors + j])

        end = f.add(row, f.round_down(f.sub("%last", row), size))
        f.loop(row, end, size, rows)
        row = end


class WordSteps(Steps):
    """The emitter of sums of products of words, instead of floats."""

    def __init__(self, v: Vectors, tile: Tile, vectors: int, offsets: Sequence[int]) -> None:
        super().__init__(v, tile.dtype, vectors, offsets, "1")
        self.words = words_of(tile)

    def add(self, left: Value, right: Value, total: Value) -> Value:
        """Emit a sum with the products of two words added."""
        return add_words(self.v, self.words, left, right, total)


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


def _emit_pack_columns(module: Module, panel: Panel, k: int) -> str:
    """Return the function that packs the columns of a panel, and writes what their sums start at.

    The factors of a word are neighbours in a column; those beyond the last row are 0.
    """
    tile, vectors = panel.frame.tile, panel.vectors
    words, width = words_of(tile), vectors * tile.lanes
    masks = [panel.counted - j * tile.lanes for j in range(vectors)]

    def emit(f: Function) -> None:
        v = Vectors(f, tile.lanes)
        shifts = v.const(0x80808080 - (1 << 32), "int32")  # 128 in each byte

        def pack(p: Value, totals: list[Value], rows: int) -> list[Value]:
            found = []
            for j, columns in enumerate(masks):
                mask = v.mask_below(columns) if columns < tile.lanes else None
                at = f.address("%from", j * tile.lanes, "i8")
                first = f.mul(p, words.factors)
                places = [
                    f.address(at, f.mul(f.add(first, i), "%pitch"), "i8") for i in range(rows)
                ]
                x = _joined(v, [v.load(place, "int8", mask) for place in places], words.factors)
                v.store(x, f.address("%to", f.add(f.mul(p, width), j * v.lanes), "i32"), "int32")
                found.append(
                    add_words(v, words, shifts, x, totals[j]) if words.shift else totals[j]
                )
            return found

        totals = ["zeroinitializer"] * vectors
        state = [(v.type("int32"), x) for x in totals]
        totals = f.loop(0, k // words.factors, 1, lambda p, x: pack(p, x, words.factors), state)
        if k % words.factors:
            totals = pack(str(k // words.factors), totals, k % words.factors)
        for j, total in enumerate(totals):
            place = f.address("%start", j * tile.lanes, "i32")
            v.store(v.neg(total, "int32"), place, "int32")

    key = ("pack int8", tile, vectors, panel.counted, k)
    return module.function("pack", "ptr %from, i64 %pitch, ptr %to, ptr %start", emit, key)


def _joined(v: Vectors, rows: Sequence[Value], factors: int) -> Value:
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


def _emit_pack_rows(
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
        def runs(axis: int, source: Value, target: Value) -> Value:
            if axis == len(reach):
                _pack_run(f, tile, source, target, run, bool(reach))
                return f.address(target, run * factor, "i8")
            count, step = reach[axis]

            def each(i: Value, carried: list[Value]) -> list[Value]:
                return [runs(axis + 1, f.address(source, f.mul(i, step), "i8"), *carried)]

            return f.loop(0, count, 1, each, [("ptr", target)])[0]

        def row(i: Value, _: list[Value]) -> None:
            source = f.address("%from", f.mul(i, "%pitch"), "i8")
            runs(0, source, f.address("%to", f.mul(i, size), "i8"))

        f.loop(0, "%count", 1, row)

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
