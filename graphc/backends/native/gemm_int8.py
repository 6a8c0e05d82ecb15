"""Products of int8 with sums in int32: of words, by tiles, or for few rows by reading b in place.

Both factors are packed as words of 32 bits (`gemm_words`), each a factor of a product of vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from graphc.backends.native.elements import Epilogue
from graphc.backends.native.gemm_frame import Frame, Panel
from graphc.backends.native.gemm_scratch import FEW, WordScratch
from graphc.backends.native.gemm_sums import Sums
from graphc.backends.native.gemm_tile import PANEL_ARGUMENTS, UNROLL, Steps, Tile
from graphc.backends.native.gemm_windows import emit_image, places_of
from graphc.backends.native.gemm_words import (
    BYTES,
    SHIFTS,
    add_words,
    emit_pack_columns,
    emit_pack_rows,
    load_word,
    words_of,
)
from graphc.backends.native.ir import Function, Module, Range, Value
from graphc.backends.native.loop_structure import clear, each_vector
from graphc.backends.native.vectors import Vectors
from graphc.ir.forms import Window
from graphc.kernels.kernel import Convolution

TOGETHER = 16
"""The words of all columns that are packed before the next: so few pages are read by turns."""
AT_ONCE = 2
"""The words of b that are added to the sums of few rows in one sweep over the columns."""


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

        f.when(f.less(*rows), lambda: over(rows, panels))

    def _matrix(self, rows: Range, panels: Range) -> None:
        """Emit the product of two stored matrices, by sweeps over b if the rows are few."""
        f, m = self.f, self.frame.kernel.m
        few = partial(_Sweeps(self).emit, rows, panels)
        many = partial(self._tiles, rows, panels)
        if self.scratch.words <= FEW or (isinstance(m, int) and m > FEW):
            many()
        elif isinstance(m, int):
            few()
        else:
            count = f.sub(rows[1], rows[0])
            f.when(f.less(FEW, count), many)
            f.when(f.less(count, FEW + 1), few)

    def _tiles(self, rows: Range, panels: Range) -> None:
        self._pack(panels)
        self._blocks(*rows, "0", panels, self.pack_rows)

    def pack_rows(self, first: Value, last: Value) -> None:
        """Emit the packing of some rows of a."""
        f, frame, k = self.f, self.frame, self.scratch.inner
        pack = emit_pack_rows(frame.module, frame.tile, k, (), k)
        row = f.address(frame.a, f.mul(first, frame.pitch_a), "i8")
        f.call(pack, row, frame.pitch_a, self.block, f.sub(last, first))

    def _images(self, rows: Range, panels: Range) -> None:
        """Emit the loop over images, of which copies are read, with zeros around them."""
        f, frame, kernel = self.f, self.frame, self.frame.kernel
        assert isinstance(kernel, Convolution)
        window = kernel.window
        v = Vectors(f, frame.tile.lanes * BYTES)
        self._pack(panels)
        if not window.is_direct:  # the zeros of the copy are written only once
            clear(v, self.image, self.scratch.image * BYTES, "int8")
        each = int(frame.panels) // window.groups
        # The groups of an image that the panels have columns of.
        for number in f.each(f.quotient(rows[0], window.count), f.ceiling(rows[1], window.count)):
            top, low, high = places_of(f, rows, number, window.count)
            groups = ("0", "1")
            if window.groups > 1:
                groups = f.quotient(panels[0], each), f.ceiling(panels[1], each)
            for index in f.each(*groups):
                first = f.add(f.mul(number, window.pixels), f.mul(index, window.channels))
                source = f.address(frame.a, first, "i8")
                f.call(emit_image(frame.module, v.lanes, "int8", window), source, self.image)
                start = f.mul(index, each)
                mine = f.larger(panels[0], start), f.smaller(panels[1], f.add(start, each))
                of_group = panels if window.groups == 1 else mine
                self._blocks(low, high, top, of_group, partial(self._pack_places, window))

    def _pack_places(self, window: Window, first: Value, last: Value) -> None:
        """Emit the packing of some places, line by line."""
        f, frame = self.f, self.frame
        step, across = window.steps[-1], window.places[-1]
        pack = emit_pack_rows(frame.module, frame.tile, window.run, window.reach, window.depth)
        # The packing of the places of one line.
        for number in f.each(f.quotient(first, across), f.ceiling(last, across)):
            start = f.mul(number, across)
            low, high = f.larger(first, start), f.smaller(last, f.add(start, across))
            *at, _last = f.indices(low, window.places[1:])
            offset = f.mul(f.sub(low, start), step)
            for index, pitch in zip(at, window.steps[:-1], strict=True):
                offset = f.add(offset, f.mul(index, pitch))
            to = frame.address(self.block, f.mul(f.sub(low, first), self.scratch.words))
            f.call(pack, f.address(self.image, offset, "i8"), step, to, f.sub(high, low))

    def _blocks(
        self,
        first: Value,
        last: Value,
        top: Value,
        panels: Range,
        pack: Callable[[Value, Value], None],
    ) -> None:
        """Emit blocks of rows, counted from `top`: their packing, and their product by panels."""
        f, size = self.f, WordScratch.MOST_ROWS
        for start in f.each(first, last, size):
            end = f.smaller(f.add(start, size), last)
            pack(start, end)
            low, high = f.add(top, start), f.add(top, end)
            for panel in self.frame.each_panel(panels):
                self._strip(low, high, panel)

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

    def _pack(self, panels: Range) -> None:
        """Emit the packing of b, some words of all panels at a time."""
        f, v = self.f, Vectors(self.f, self.frame.tile.lanes)
        factors = words_of(self.frame.tile).factors
        full, rest = divmod(self.scratch.inner, factors)
        clear(v, self.starts, self.scratch.row, "int32")
        for p in f.each(0, full, TOGETHER):
            count = f.smaller(f.sub(full, p), TOGETHER)
            for panel in self.frame.each_panel(panels):
                self._pack_words(p, count, factors, panel)
        if rest:
            for panel in self.frame.each_panel(panels):
                self._pack_words(str(full), "1", rest, panel)

    def _pack_words(self, p: Value, count: Value, last: int, panel: Panel) -> None:
        """Emit the packing of `count` words of a panel, from number p on."""
        f, frame, tile = self.f, panel.frame, panel.frame.tile
        pack = emit_pack_columns(frame.module, panel, last)
        row = f.mul(f.mul(p, words_of(tile).factors), frame.pitch_b)
        source = f.address(frame.b, f.add(row, panel.column), "i8")
        to, start = self._at(panel)
        to = frame.address(to, f.mul(p, panel.vectors * tile.lanes))
        f.call(pack, source, frame.pitch_b, to, start, count)


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


class _Sweeps:
    """The product of few rows, whose sums stay in scratch while b is read once, in place."""

    def __init__(self, product: Int8) -> None:
        self.product, self.frame, self.f = product, product.frame, product.f
        self.words = words_of(self.frame.tile)

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product: all rows use some words of b before the next ones are read."""
        f, frame = self.f, self.frame
        start = f.mul(panels[0], frame.tile.width)
        end = f.smaller(f.mul(panels[1], frame.tile.width), frame.scratch.columns)
        self.columns, self.rows = (start, f.larger(f.sub(end, start), 0)), rows
        self.sums, v = Sums(frame, rows[0]), Vectors(f, frame.tile.lanes)
        self.shift = self.sums.place(f.add(rows[0], FEW), start)
        after = f.add(rows[0], FEW + 1)
        f.loop(rows[0], after, 1, lambda i, _: clear(v, self._sums(i), self.columns[1], "int32"))
        self.product.pack_rows(*rows)
        count, rest = divmod(self.product.scratch.inner, self.words.factors)
        full = count // AT_ONCE * AT_ONCE
        f.loop(0, full, AT_ONCE, lambda p, _: self._sweep(p, AT_ONCE, self.words.factors))
        f.loop(full, count, 1, lambda p, _: self._sweep(p, 1, self.words.factors))
        if rest:
            self._sweep(str(count), 1, rest)
        if self.words.shift:
            f.loop(*rows, 1, lambda i, _: self._without_shift(v, i))
        self.sums.run_body(rows, panels)

    def _sums(self, i: Value) -> Value:
        return self.sums.place(i, self.columns[0])

    def _sweep(self, p: Value, height: int, last: int) -> None:
        """Emit the sums of all rows with the next words added; those of the shift, once."""
        f, frame = self.f, self.frame
        start, count = self.columns
        below = f.add(f.mul(f.mul(p, self.words.factors), frame.pitch_b), start)
        b = f.address(frame.b, below, "i8"), frame.pitch_b, count

        def row(shift: bool, i: Value, _: list[Value]) -> None:
            inside = f.add(f.mul(f.sub(i, self.rows[0]), self.product.scratch.words), p)
            name = _emit_sweep(frame.module, frame.tile, height, last, shift)
            s = frame.address(self.product.block, inside)
            f.call(name, s, *b, self._sums(i), self.shift)

        first = f.add(self.rows[0], 1 if self.words.shift else 0)
        if self.words.shift:
            row(True, self.rows[0], [])
        f.loop(first, self.rows[1], 1, partial(row, False))

    def _without_shift(self, v: Vectors, i: Value) -> None:
        """Emit the sums of a row without what the shift has added."""
        f, sums = self.f, self._sums(i)
        for column in f.each(0, self.columns[1], v.lanes):
            place = f.address(sums, column, "i32")
            shift = v.load(f.address(self.shift, column, "i32"), "int32")
            v.store(v.sub(v.load(place, "int32"), shift, "int32"), place, "int32")


def _emit_sweep(module: Module, tile: Tile, height: int, last: int, shift: bool) -> str:
    """Return the function that adds `height` words of each column, times those of s, to sums.

    Of the last word there are `last` factors.  The sums have space for full vectors; so have those
    of the shift, which are added to if asked for.
    """

    def emit(f: Function) -> None:
        """Emit the loop over vectors of columns."""
        v, words = Vectors(f, tile.lanes), words_of(tile)
        scalars = [v.load_splat(f.address("%s", h, "i32"), "int32") for h in range(height)]
        starts = [f.address("%v", f.mul("%pitch", h * words.factors), "i8") for h in range(height)]
        for column, mask in each_vector(v, "%columns"):
            places = [f.address(x, column, "i32") for x in ("%out", "%shift")[: 1 + shift]]
            totals = [v.load(place, "int32") for place in places]
            for scalar, start in zip(scalars, starts, strict=True):
                x = load_word(v, words, f.address(start, column, "i8"), "%pitch", last, mask)
                lefts = scalar, v.const(SHIFTS, "int32")
                totals = [
                    add_words(v, words, left, x, total)
                    for left, total in zip(lefts, totals, strict=False)
                ]
            for place, total in zip(places, totals, strict=True):
                v.store(total, place, "int32")

    key = ("word sweep", tile.words, tile.lanes, height, last, shift)
    arguments = "ptr %s, ptr %v, i64 %pitch, i64 %columns, ptr %out, ptr %shift"
    return module.function("sweep", arguments, emit, key)
