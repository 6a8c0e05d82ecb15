"""Products that keep sums in a thread's scratch: of few rows, or of a long k, by blocks of k.

For few rows b is read once, in place.  For a long k only a block of b is in a cache near the core;
products are still added in the order of k, so the result has the same bits as without blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from graphc.backends.native.gemm_frame import Frame, Panel
from graphc.backends.native.gemm_scratch import FEW
from graphc.backends.native.gemm_tile import LINE, UNROLL, Steps, Tile, emit_tile
from graphc.backends.native.ir import Function, Module, Range, Value
from graphc.backends.native.loop_structure import clear, each_vector
from graphc.backends.native.vectors import Vectors, element_type
from graphc.ir.tensor_type import ITEMSIZE, dim_at

AT_ONCE = 8
"""Rows of b that are added to the sums in one sweep over the columns."""
FAR = 1 << 23
"""If b has this many bytes, no cache holds it until the next run: its rows are prefetched, but not
those of bfloat16, which takes longer: a line of two vectors would be asked for twice."""
AHEAD = 128
"""The prefetch distance in columns: processors do not prefetch rows far apart by themselves."""


class Sums:
    """The part of a thread's scratch that holds the sums of few rows, in full panels."""

    def __init__(self, frame: Frame, first: Value) -> None:
        self.frame, self.f, self.first = frame, frame.f, first

    def place(self, i: Value, column: Value) -> Value:
        """Emit the address of the sum of row i at a column."""
        row = self.f.mul(self.f.sub(i, self.first), self.frame.scratch.row)
        return self.frame.address(self.frame.workspace, self.f.add(row, column))

    def run_body(self, rows: Range, panels: Range) -> None:
        """Emit the body on all sums, row by row."""
        for i in self.f.each(*rows):
            for panel in self.frame.each_panel(panels):
                panel.run_body(self.place(i, panel.column), i, 1)


class Sweeps:
    """The product of few rows, whose sums stay in scratch while b is read once."""

    def __init__(self, frame: Frame) -> None:
        self.frame, self.f = frame, frame.f

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product: all rows use some rows of b before the next ones are read."""
        frame, f = self.frame, self.f
        start = f.mul(panels[0], frame.tile.width)
        end = f.smaller(f.mul(panels[1], frame.tile.width), frame.scratch.columns)
        count = f.larger(f.sub(end, start), 0)
        self.columns, self.rows, self.sums = (start, count), rows, Sums(frame, rows[0])
        v = Vectors(f, frame.tile.lanes)
        for i in f.each(*rows):
            clear(v, self.sums.place(i, start), count, frame.tile.dtype)
        done: Value = "0"
        for height in (AT_ONCE, 2, 1) if frame.kernel.ordered else (AT_ONCE, 1):
            full = f.round_down(frame.k, height)
            f.loop(done, full, height, partial(self._sweep, height))
            done = full
        self.sums.run_body(rows, panels)

    def _sweep(self, height: int, p: Value, _: list[Value]) -> None:
        frame, f = self.frame, self.f
        ahead = 2 * AT_ONCE if self._is_far() else 0
        factors = frame.kernel.factor_dtype
        name = emit_sweep(frame.module, frame.tile, height, ahead, factors)
        start, count = self.columns
        b = frame.factor(frame.factor(frame.b, start), f.mul(p, frame.pitch_b))
        for i in f.each(*self.rows):
            s = frame.factor(frame.a, f.add(f.mul(i, f.size(frame.rows_a)), p))
            f.call(name, s, b, frame.pitch_b, count, self.sums.place(i, start))

    def _is_far(self) -> bool:
        kernel = self.frame.kernel
        size = dim_at(kernel.k, 1) * self.frame.scratch.columns * ITEMSIZE[kernel.factor_dtype]
        return size >= FAR and not kernel.ordered


NEAR = 1 << 20
"""If b has at most this many bytes, the second-level cache may hold it."""
TOGETHER = 4
"""The panels of columns whose sums registers hold for one row."""


def is_near(frame: Frame) -> bool:
    """Return whether the second-level cache may hold b."""
    kernel = frame.kernel
    if not isinstance(kernel.k, int) or not isinstance(kernel.n, int):
        return False
    return kernel.k * kernel.n * ITEMSIZE[kernel.dtype] <= NEAR


class Registers:
    """The product of few rows with a b that is near: sums stay in registers, row by row."""

    def __init__(self, frame: Frame) -> None:
        self.frame, self.f = frame, frame.f

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product: some columns use all of k before the next ones do."""
        frame, f = self.frame, self.f
        self.sums = Sums(frame, rows[0])
        full = frame.scratch.columns // frame.tile.width
        count = f.larger(f.sub(f.smaller(panels[1], full), panels[0]), 0)
        wide = f.add(panels[0], f.round_down(count, TOGETHER))
        for i in f.each(*rows):
            vectors, width = frame.tile.vectors * TOGETHER, frame.tile.width
            for first in f.each(panels[0], wide, TOGETHER):
                self._columns(frame, i, f.mul(first, width), vectors, None)
            for panel in frame.each_panel((wide, panels[1])):
                columns = panel.counted if panel.masked else None
                self._columns(panel.frame, i, panel.column, panel.vectors, columns)
        self.sums.run_body(rows, panels)

    def _columns(
        self, frame: Frame, i: Value, column: Value, vectors: int, columns: int | None
    ) -> None:
        """Emit the sums of row i in some vectors of columns."""
        name = emit_tile(frame.module, frame.tile, 1, vectors, columns)
        s = frame.address(frame.a, self.f.mul(i, self.f.size(frame.rows_a)))
        b = frame.address(frame.b, column)
        place = self.sums.place(i, column)
        self.f.call(name, s, 0, 1, 1, b, frame.pitch_b, place, frame.k)


def emit_sweep(module: Module, tile: Tile, rows: int, ahead: int, factors: str) -> str:
    """Emit the function that adds `rows` rows of b, each times its scalar of s, to sums.

    Return its name.  The sums of `%columns` columns take the rows in order, those of bfloat16 in
    pairs, the second one first; `factors` is the dtype of rows and scalars.  `%out` has space for
    full vectors.  If `ahead` is not 0, rows that far ahead are prefetched meanwhile.
    """

    def emit(f: Function) -> None:
        """Emit the loop over vectors of columns."""
        v, element, dtype = Vectors(f, tile.lanes), element_type(factors), tile.dtype
        order = [i ^ 1 if factors == "bfloat16" and rows > 1 else i for i in range(rows)]
        starts = [f.address("%v", f.mul("%pitch", i), element) for i in order]
        later = [f.address("%v", f.mul("%pitch", i + ahead), element) for i in order]
        places = [f.address("%s", i, element) for i in order]
        scalars = [v.cast(v.load_splat(place, factors), factors, dtype) for place in places]
        for column, mask in each_vector(v, "%columns"):
            place = f.address("%out", column, element_type(dtype))
            total = v.load(place, dtype)
            for start in later if ahead else ():
                v.prefetch(f.address(start, column, element), write=False)
            for start, scalar in zip(starts, scalars, strict=True):
                x = v.load(f.address(start, column, element), factors, mask)
                total = v.fma(scalar, v.cast(x, factors, dtype), total, dtype)
            v.store(total, place, dtype)

    key = ("sweep", factors, tile.lanes, rows, ahead)
    arguments = "ptr %s, ptr %v, i64 %pitch, i64 %columns, ptr %out"
    return module.function("sweep", arguments, emit, key)


class Squares:
    """The product of few rows with a transposed b, by vectors of columns."""

    def __init__(self, frame: Frame) -> None:
        self.frame, self.f = frame, frame.f

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product: all rows use a square of b before the next one is read."""
        frame, f = self.frame, self.f
        assert isinstance(frame.kernel.k, int), "the columns of a weight"
        name = emit_squares(frame.module, frame.tile, frame.kernel.k)
        sums, width = Sums(frame, rows[0]), frame.tile.width
        s = frame.address(frame.a, f.mul(rows[0], frame.pitch_a))
        end = f.smaller(f.mul(panels[1], width), frame.scratch.columns)
        end = f.select(f.less(*rows), "i64", end, 0)
        for column in f.each(f.mul(panels[0], width), end, frame.tile.lanes):
            v = frame.address(frame.b, f.mul(column, frame.pitch_b))
            left = (s, frame.pitch_a, f.sub(rows[1], rows[0]))
            right = (v, frame.pitch_b, f.sub(frame.scratch.columns, column))
            f.call(name, *left, *right, sums.place(rows[0], column), frame.scratch.row, frame.k)
        sums.run_body(rows, panels)


def emit_squares(module: Module, tile: Tile, k: int) -> str:
    """Emit the function that multiplies rows of scalars by a vector of columns; return its name.

    There are `%count` rows of k scalars, `%apart` from each other; the columns are stored as
    `%columns` rows, `%pitch` apart.  `%out` takes FEW rows of a vector, `%row` apart.  Each element
    has one accumulator, from zero, in the order of k; missing rows and columns repeat the last.
    """

    def emit(f: Function) -> None:
        _Column(Vectors(f, tile.lanes), tile.dtype).emit(k)

    key = ("squares", tile.dtype, tile.lanes, min(k // tile.lanes, 1), k % tile.lanes)
    left, right = "ptr %s, i64 %apart, i64 %count", "ptr %v, i64 %pitch, i64 %columns"
    return module.function("squares", f"{left}, {right}, ptr %out, i64 %row, i64 %k", emit, key)


class _Column:
    """The emitter of one vector of columns."""

    def __init__(self, v: Vectors, dtype: str) -> None:
        self.v, self.f = v, v.function
        self.dtype, self.element = dtype, element_type(dtype)
        self.scalars = self._starts("%s", "%apart", "%count", FEW)
        self.columns = self._starts("%v", "%pitch", "%columns", v.lanes)

    def _starts(self, base: Value, apart: Value, count: Value, most: int) -> list[Value]:
        last = self.f.sub(count, 1)
        offsets = [self.f.mul(self.f.smaller(i, last), apart) for i in range(most)]
        return [self._at(base, offset) for offset in offsets]

    def emit(self, k: int) -> None:
        """Emit the loop over k by squares, a last one that is not full, and the stores."""
        lanes, type = self.v.lanes, self.v.type(self.dtype)
        full, rest = self.f.round_down("%k", lanes), k % lanes
        sums = ["zeroinitializer"] * FEW
        if k >= lanes:
            state = [(type, x) for x in sums]
            sums = self.f.loop(0, full, lanes, lambda p, x: self._square(p, x, lanes), state)
        if rest:
            sums = self._square(full, sums, rest)
        for i, x in enumerate(sums):
            self.v.store(x, self._at("%out", self.f.mul("%row", i)), self.dtype)

    def _square(self, p: Value, sums: list[Value], depth: int) -> list[Value]:
        """Emit the sums with the next `depth` of k added."""
        mask = self.v.mask_below(depth) if depth < self.v.lanes else None
        places = [self._at(start, p) for start in self.columns]
        rows = [self.v.load(place, self.dtype, mask) for place in places]
        for place in places if mask is None else ():
            self.v.prefetch(self._at(place, AHEAD), write=False)
        scalars = [self._at(s, p) for s in self.scalars]
        for number, x in enumerate(self.v.transpose(rows, self.dtype)[:depth]):
            lefts = [self.v.load_splat(self._at(s, number), self.dtype) for s in scalars]
            sums = [
                self.v.fma(left, x, total, self.dtype)
                for left, total in zip(lefts, sums, strict=True)
            ]
        return sums

    def _at(self, base: Value, index: Value | int) -> Value:
        return self.f.address(base, index, self.element)


class Blocks:
    """The loops over panels of columns, in each over blocks of k, in each over the row tiles."""

    def __init__(self, frame: Frame) -> None:
        assert not frame.kernel.trans_a and isinstance(frame.kernel.k, int)
        self.frame, self.f, self.k = frame, frame.f, frame.kernel.k
        self.size = frame.scratch.k_block
        self.packed = frame.workspace
        self.sums = frame.address(self.packed, frame.scratch.panel(self.size))

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product for ranges of rows and panels."""
        for _ in self.f.only_if(self.f.less(*rows)):
            for panel in self.frame.each_panel(panels):
                self._panel(rows, panel)

    def _panel(self, rows: Range, panel: Panel) -> None:
        f, tile, size = self.f, panel.frame.tile, self.size
        count, full = f.sub(rows[1], rows[0]), self.k // size * size
        height, width = tile.height(panel.vectors), panel.vectors * tile.lanes
        tiles = f.mul(f.ceiling(count, height), height * width)
        clear(Vectors(f, tile.lanes), self.sums, tiles, tile.dtype)
        for p in f.each(0, full, size):
            self._block(rows[0], count, p, size, panel)
        if full < self.k:
            self._block(rows[0], count, str(full), self.k - full, panel)
        panel.run_body(self.sums, rows[0], count)

    def _block(self, row: Value, count: Value, p: Value, k: int, panel: Panel) -> None:
        f, frame = self.f, panel.frame
        packed = panel.stored(p) if frame.packed else self.packed
        if not frame.packed:
            panel.pack(self._place(p, panel.column), self.packed, k)
        s = frame.address(frame.a, f.add(f.mul(row, frame.pitch_a), p))
        following = self._following(p, k, panel)
        f.call(_emit_block(panel), s, count, packed, k, self.sums, *following)

    def _following(self, p: Value, k: int, panel: Panel) -> tuple[Value, int]:
        """Emit the address of the next block of b, and the elements between its rows."""
        f = self.f
        if panel.frame.packed:
            return panel.stored(f.add(p, k)), LINE // ITEMSIZE[panel.frame.tile.dtype]
        after = f.add(p, k)
        ends = f.value(f"icmp eq i64 {after}, {self.k}")
        here = self._place(after, panel.column)
        there = self._place("0", f.add(panel.column, self.frame.tile.width))
        return f.value(f"select i1 {ends}, ptr {there}, ptr {here}"), self.frame.pitch_b

    def _place(self, p: Value, column: Value) -> Value:
        """Emit the address of a column in row p of b."""
        f, frame = self.f, self.frame
        major, minor = (column, p) if frame.kernel.trans_b else (p, column)
        return frame.address(frame.b, f.add(f.mul(major, frame.pitch_b), minor))


def _emit_block(panel: Panel) -> str:
    """Emit the function that adds `%count` rows times k rows of a packed panel to sums.

    The rows of the sums are full vectors.  Meanwhile it prefetches the block at
    `%next`.  The last tile may have fewer rows: then it repeats the last row.
    """
    frame, vectors = panel.frame, panel.vectors
    tile, size = frame.tile, frame.scratch.k_block
    following = (size, _lines(frame, tile.width))
    if frame.packed:
        following = (-(-size * panel.pitch * ITEMSIZE[tile.dtype] // LINE), 1)
    elif frame.kernel.trans_b:
        following = (tile.width, _lines(frame, size))

    def emit(f: Function) -> None:
        v = Vectors(f, tile.lanes)
        block = _Block(v, tile, vectors, frame.pitch_a, size, following)
        block.emit(panel.pitch, panel.last_mask(v))

    row = panel.pitch, panel.cut
    key = ("block", tile.dtype, tile.lanes, vectors, frame.pitch_a, size, following, row)
    arguments = "ptr %s, i64 %count, ptr %v, i64 %k, ptr %sums, ptr %next, i64 %apart"
    return frame.module.function("block", arguments, emit, key)


def _lines(frame: Frame, columns: int) -> int:
    """Return the most cache lines that this many columns of a row of b lie in."""
    line = LINE // ITEMSIZE[frame.tile.dtype]
    return -(-columns // line) + bool(frame.pitch_b % line)


class _Block:
    """The emitter of the tiles of one block of k."""

    def __init__(
        self,
        v: Vectors,
        tile: Tile,
        vectors: int,
        pitch: int,
        size: int,
        following: tuple[int, int],
    ) -> None:
        """Prepare; `pitch` is that of s, `size` the usual k of a block.

        `following` are the rows of the next block of b, and the cache lines in each.
        """
        self.v, self.f, self.dtype, self.pitch = v, v.function, tile.dtype, pitch
        self.element, self.vectors = element_type(tile.dtype), vectors
        self.height, self.width = tile.height(vectors), vectors * tile.lanes
        self.line, self.size, self.following = LINE // ITEMSIZE[tile.dtype], size, following

    def emit(self, pitch: int, last: Value | None) -> None:
        """Emit the full tiles, and one tile of the remaining rows.

        `pitch` is that of the panel, and `last` masks the last vector of its rows.
        """
        self.of_panel, self.last = str(pitch), last
        f, height = self.f, self.height
        prefetches = self.following[0] * self.following[1]
        share = f.quotient(prefetches, f.ceiling("%count", height))
        full = f.round_down("%count", height)
        offsets = [r * self.pitch for r in range(height)]
        f.loop(0, full, height, lambda i, _: self._tile(i, offsets, share))
        last = f.sub(f.sub("%count", full), 1)
        some = f.value(f"icmp sge i64 {last}, 0")
        rest = [f.mul(self.pitch, f.smaller(r, last)) for r in range(height)]
        f.when(some, lambda: self._tile(full, rest, share))

    def _tile(self, i: Value, offsets: Sequence[Value | int], share: Value) -> None:
        """Emit the tile that begins at row i."""
        f, v = self.f, self.v
        steps = Steps(v, self.dtype, self.vectors, offsets, "1", self.last)
        s = f.address("%s", f.mul(i, self.pitch), self.element)
        sums = f.address("%sums", f.mul(i, self.width), self.element)
        numbers = range(self.height * self.vectors)
        places = [f.address(sums, number * v.lanes, self.element) for number in numbers]
        start = [v.load(place, self.dtype) for place in places]
        of_next = f.mul(f.quotient(i, self.height), share)
        below = f.address(s, self.height * self.pitch, self.element)

        def before(p: Value) -> None:
            # The processor predicts the rows of the tile below, but not where they begin.
            lines = self.size // self.line
            self._prefetch(below, self._part(p, self.height * lines), lines, self.pitch)
            line = f.add(of_next, self._part(p, share))
            self._prefetch("%next", line, self.following[1], "%apart")

        totals = steps.run((s, "%v"), self.of_panel, "%k", UNROLL, before, start)
        for place, total in zip(places, totals, strict=True):
            v.store(total, place, self.dtype)

    def _part(self, p: Value, of: Value | int) -> Value:
        """Emit the number of the prefetch at p; all `of` are spread over k, to delay nothing."""
        return self.f.quotient(self.f.mul(p, of), self.size)

    def _prefetch(self, base: Value, number: Value, lines: int, pitch: Value | int) -> None:
        """Prefetch a cache line, by its number in rows of `lines` lines each."""
        f = self.f
        row = f.mul(f.quotient(number, lines), pitch)
        inside = f.mul(f.remainder(number, lines), self.line)
        self.v.prefetch(f.address(base, f.add(row, inside), self.element), write=False)
