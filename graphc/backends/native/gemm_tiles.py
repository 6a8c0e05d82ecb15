"""Matrix products by register tiles, over packed operands.

A strip is a function: the full tiles of one panel, one below the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import gcd

from graphc.backends.arithmetic import LONG
from graphc.backends.native.elements import Epilogue, matrices
from graphc.backends.native.gemm_frame import Frame, Panel, emit_copy
from graphc.backends.native.gemm_scratch import Scratch
from graphc.backends.native.gemm_tile import (
    LINE,
    PANEL_ARGUMENTS,
    UNROLL,
    Steps,
    Strides,
    emit_tile,
)
from graphc.backends.native.ir import Function, Range, Value
from graphc.backends.native.vectors import Vectors
from graphc.ir.tensor_type import ITEMSIZE, Batch, Dim, dim_at
from graphc.kernels.kernel import CHUNK, Gemm

NEAR = 1 << 18
"""The most bytes of the operand of fixed size for which a product's data counts as near."""


def _emit_strip(panel: Panel, strides: Strides, packed: bool) -> str:
    """Emit the function that computes full tiles of a panel; return its name.

    `strides` are the elements from row to row of scalars, and from one of k to the next.
    `packed` scalars lie in chunks of rows.  The arguments after the buffers: scalars of the first
    row, the panel of b, the elements between its rows, their number; the first and end row; space
    for a tile.
    """
    frame = panel.frame
    own = "ptr %s, ptr %v, i64 %pitch, i64 %k, i64 %first, i64 %last, ptr %products"
    return frame.module.function(
        "strip",
        f"{frame.typed}, {own}, {PANEL_ARGUMENTS}",
        lambda f: _Strip(f, panel, strides, packed).emit(),
    )


def _is_near(kernel: Gemm) -> bool:
    """Return whether all data of the product is likely to stay in the second-level cache."""
    sizes = [dim_at(dim, 1) for dim in (kernel.m, kernel.n, kernel.k)]
    weights = sizes[1] * (sizes[0] if isinstance(kernel.m, int) else sizes[2])
    return weights * ITEMSIZE[kernel.dtype] <= NEAR


class _Strip:
    """The emitter of one strip: the full tiles of a panel."""

    def __init__(self, f: Function, panel: Panel, strides: Strides, packed: bool) -> None:
        self.panel, self.frame, self.f = panel, panel.frame, f
        frame, tile, vectors = self.frame, self.frame.tile, panel.vectors
        self.v = Vectors(f, tile.lanes)
        self.elements = frame.elements(self.v)
        dtypes = matrices(frame.kernel.body).items()
        self.matrices = [b for b, dtype in dtypes if ITEMSIZE[dtype] == ITEMSIZE[tile.dtype]]
        self.height, self.vectors = tile.height(vectors), vectors
        self.row, step = map(f.size, strides)
        offsets = [f.mul(self.row, i) for i in range(self.height)]
        last = panel.last_mask(self.v)
        self.steps = Steps(self.v, tile.dtype, vectors, offsets, step, last)
        self.packed = packed
        self.per_line = LINE // ITEMSIZE[tile.dtype]
        self.k: Value = str(frame.kernel.k) if isinstance(frame.kernel.k, int) else "%k"

    def emit(self) -> None:
        """Emit the loop over the tiles."""
        kernel = self.frame.kernel
        # A long body has no registers to spare, and copies of it for all vectors are slow to fetch.
        long = any(step.op in LONG for step in kernel.body.steps)
        near = _is_near(kernel) and not long
        tile = self._tile_in_registers() if near else self._tile_in_memory()
        self.f.loop("%first", "%last", self.height, lambda i, _: tile(i))

    def _tile_in_registers(self) -> Callable[[Value], None]:
        """Return a function that emits a tile whose body uses the sums in registers.

        The matrices that the body reads are prefetched before the sums.
        """
        frame = self.frame
        epilogue = Epilogue(self.elements, self.vectors, self.panel.masked)
        steps = frame.kernel.body.steps
        read = {s.buffer for s in steps if s.op == "load" and s.broadcast == "each"}

        def tile(i: Value) -> None:
            """Emit the tile from row i on."""
            starts = self.elements.lines(i, "%column")
            for buffer in (b for b in self.matrices if b in read):
                for r in range(self.height):
                    below = self.f.mul(r, self.elements.pitch[buffer])
                    self._prefetch(self._at(starts[buffer], below), buffer)
            sums = self._sums(i, self._prefetch_scalars(i))
            epilogue.rows(i, self.height, lambda r, j: sums[r * self.vectors + j])

        return tile

    def _tile_in_memory(self) -> Callable[[Value], None]:
        """Return a function that emits a tile whose body is a loop over rows.

        The processor predicts that loop.  Data for the next tile is prefetched, spread over k so
        that it delays nothing.
        """
        f, frame, height = self.f, self.frame, self.height
        # Shifts replace divisions in the loop over k; rounded down, they prefetch too much, not too
        # little.
        share = self._log2(f.quotient(f.sub("%last", "%first"), height))
        of_rows = self._log2(f.quotient(self.k, height))
        epilogue, buffers = frame.epilogue(self.vectors, self.panel.masked), frame.arguments

        def tile(i: Value) -> None:
            """Emit the tile from row i on."""
            following = self.elements.lines(f.add(i, height), "%column")
            ahead = [self._prefetch_panel(i, share), self._prefetch_scalars(i)]
            ahead += [
                partial(self._prefetch_matrix, b, following[b], of_rows) for b in self.matrices
            ]
            sums = self._sums(i, lambda p: [prefetch(p) for prefetch in ahead])
            for number, x in enumerate(sums):
                self.v.store(x, self._at("%products", number * self.v.lanes), frame.tile.dtype)
            of_panel = ("%column", "%columns", "%m", "%n")
            f.call(epilogue, *buffers.values(), "%products", i, height, *of_panel)

        return tile

    def _sums(self, i: Value, before: Callable[[Value], object]) -> list[Value]:
        """Emit the products of the tile that begins at row i."""
        f = self.f
        inside = f.sub(i, "%first")
        start = f.mul(inside, self.row)
        if self.packed:
            lane = f.value(f"and i64 {inside}, {CHUNK - 1}")
            start = f.add(f.mul(f.sub(inside, lane), self.k), lane)
        return self.steps.run((self._at("%s", start), "%v"), "%pitch", self.k, UNROLL, before)

    # ------------------------------------------------------------------ prefetches

    def _prefetch_scalars(self, i: Value) -> Callable[[Value], None]:
        """Return a function that emits prefetches of the rows of a in the next tile.

        Each step takes an equal share of them; rows that are apart do not lie in one piece.
        """
        f, frame = self.f, self.frame
        if self.packed or frame.rows_a != frame.kernel.k or frame.kernel.trans_a:
            return lambda p: None
        below = f.add(f.sub(i, "%first"), self.height)
        following = self._at("%s", f.mul(below, self.row))

        def prefetch(p: Value) -> None:
            self.v.prefetch(self._at(following, f.mul(p, self.height)), write=False)

        return prefetch

    def _prefetch_panel(self, i: Value, shift: Value) -> Callable[[Value], None]:
        """Return a function that emits prefetches of a tile's share of the next panel of b.

        It goes to the second-level cache, since packing uses it only once.  The share is some of
        the k rows or, if b is stored (n, k), one of the columns.
        """
        f, frame, width = self.f, self.frame, self.frame.tile.width
        number = f.quotient(f.sub(i, "%first"), self.height)
        following, pitch = f.add("%column", width), f.size(frame.rows_b)
        apart = pitch
        if frame.packed:
            share = f.mul(f.value(f"lshr i64 {self.k}, {shift}"), self.panel.pitch)
            place = self._at("%v", f.add(frame.depth * self.panel.pitch, f.mul(number, share)))
            apart = str(self.panel.pitch)
        elif frame.kernel.trans_b:
            place = self._at(frame.b, f.mul(f.add(following, number), pitch))
            shift, apart = str(width.bit_length() - 1), str(width)
        else:
            share = f.mul(f.value(f"lshr i64 {self.k}, {shift}"), pitch)
            place = self._at(self._at(frame.b, following), f.mul(number, share))

        def prefetch(p: Value) -> None:
            row = self._at(place, f.mul(f.value(f"lshr i64 {p}, {shift}"), apart))
            for j in range(0, width, self.per_line):
                self.v.prefetch(self._at(row, j), write=False)

        return prefetch

    def _prefetch_matrix(self, buffer: str, start: Value, shift: Value, p: Value) -> None:
        """Prefetch a row of the next tile in a matrix that the body reads or writes."""
        number = self.f.value(f"lshr i64 {p}, {shift}")
        pitch = self.elements.pitch[buffer]
        self._prefetch(self._at(start, self.f.mul(number, pitch)), buffer)

    def _prefetch(self, row: Value, buffer: str) -> None:
        """Prefetch a row of the panel; one that begins inside a cache line takes one more line."""
        width = self.steps.vectors * self.v.lanes
        columns = [*range(0, width, self.per_line)]
        pitch = self.elements.pitch[buffer]
        if not isinstance(pitch, int) or pitch % self.per_line:
            columns.append(width - 1)
        for j in columns:
            self.v.prefetch(self._at(row, j), write=True)

    def _log2(self, number: Value) -> Value:
        """Emit the base-2 logarithm of a number, rounded down; 0 for 0."""
        self.frame.module.declare("declare i64 @llvm.ctlz.i64(i64, i1)")
        zeros = self.f.value(f"call i64 @llvm.ctlz.i64(i64 {self.f.larger(number, 1)}, i1 true)")
        return self.f.sub(63, zeros)

    def _at(self, base: Value, index: Value | int) -> Value:
        return self.f.address(base, index, self.steps.element)


SETS = 1024
ROWS_A_SET = 16
"""The sets of a second-level cache, and the rows of b that may fall on one set: its ways."""
MANY = 64
ROWS_A_SET_OF_MANY = 4
"""For more rows of the result packing takes little of the time: measured, it then pays if more rows
of b fall on one set."""


@dataclass(frozen=True)
class _Placed:
    """A panel of b, packed or in place: its address, and the elements between its rows."""

    panel: Panel
    place: Value
    pitch: Value


class Tiles:
    """The loops over blocks of rows, in each over panels of columns, in each over tiles.

    A panel of b, which every tile of a column reads, is packed if a cache near the core would not
    hold it in place.  If a is stored (k, m) and read by several panels, it is packed by blocks of
    rows that stay near the core; else its scalars are read in place, by such blocks if b is packed.
    """

    def __init__(self, frame: Frame) -> None:
        f, tile = frame.f, frame.tile
        self.frame, self.f, self.kernel = frame, f, frame.kernel
        columns, most = frame.kernel.n, self._read_in_place()
        self.packs_a = frame.kernel.trans_a and (not isinstance(columns, int) or columns > most)
        self.strides: Strides = (frame.rows_a, 1)
        if frame.kernel.trans_a:
            self.strides = (1, CHUNK if self.packs_a else frame.rows_a)
        self.panel = frame.workspace
        self.block = ""
        self.size = "0" if frame.packed else f.mul(f.add(frame.k, tile.lanes), tile.width)

    def _read_in_place(self) -> int:
        """Return the most columns for which a is not packed if it is stored (k, m).

        It is one panel if the rows of a fall, or may fall, on few sets of a cache, else four.
        """
        frame, pitch = self.frame, self.frame.rows_a
        item = ITEMSIZE[frame.tile.dtype]
        collide = not isinstance(pitch, int) or pitch * item % (16 * LINE) == 0
        return frame.tile.width * (1 if collide else 4)

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product for ranges of rows and panels."""
        f = self.f
        if not (self.packs_a or self.frame.packed):
            f.when(f.less(*rows), lambda: self._panels(rows, panels))
            return
        self.block = self.frame.address(self.panel, self.size)
        height = self._block_height() if self.packs_a else str(self._near_rows())
        for start in f.each(rows[0], rows[1], height):
            end = f.smaller(f.add(start, height), rows[1])
            if self.packs_a:
                self._pack_a(start, end)
            self._panels((start, end), panels)

    def _near_rows(self) -> int:
        """Return the rows whose scalars and results a cache near the core holds for all panels."""
        kernel = self.kernel
        row = (dim_at(kernel.k, 1) + self.frame.scratch.columns) * ITEMSIZE[kernel.dtype]
        return max(NEAR // row // CHUNK, 4) * CHUNK

    def _block_height(self) -> Value:
        """Emit the number of rows whose packed scalars stay in a cache near the core."""
        fit = self.f.quotient(Scratch.ELEMENTS, self.f.larger(self.frame.k, 1))
        fit = self.f.round_down(fit, CHUNK)
        return self.f.larger(self.f.smaller(fit, Scratch.MOST_ROWS), Scratch.LEAST)

    def _panels(self, rows: Range, panels: Range) -> None:
        for panel in self.frame.each_panel(panels):
            self._all_rows(rows, self._panel_of_b(rows, panel))

    def _all_rows(self, rows: Range, b: _Placed) -> None:
        """Emit the full tiles, then smaller ones for the remaining rows."""
        f, height = self.f, b.panel.frame.tile.height(b.panel.vectors)
        row = f.add(rows[0], f.round_down(f.sub(rows[1], rows[0]), height))
        self._strip(rows[0], row, b)
        if not _divides(self.kernel.m, height):
            f.loop(row, rows[1], self.frame.tile.rows, lambda i, _: self._last_rows(rows, i, b))

    def _strip(self, first: Value, last: Value, b: _Placed) -> None:
        frame = b.panel.frame
        strip = _emit_strip(b.panel, self.strides, self.packs_a)
        operands = self._scalars(first, first), b.place, b.pitch, frame.k
        where = first, last, frame.products, *b.panel.last_arguments
        self.f.call(strip, *frame.arguments.values(), *operands, *where)

    def _last_rows(self, rows: Range, i: Value, b: _Placed) -> None:
        """Emit a tile for the last rows, or half of one if they fit."""
        f, height = self.f, self.frame.tile.rows
        left = f.smaller(f.sub(rows[1], i), height)
        for comparison, size in (("sle", height // 2), ("sgt", height)):
            fits = f.value(f"icmp {comparison} i64 {left}, {height // 2}")
            f.when(fits, partial(self._part, rows[0], i, left, size, b))

    def _part(self, start: Value, i: Value, count: Value, height: int, b: _Placed) -> None:
        """Emit `count` rows by a tile of `height`."""
        frame = b.panel.frame
        last = b.panel.counted if b.panel.cut else None
        name = emit_tile(frame.module, frame.tile, height, b.panel.vectors, last)
        left = self._scalars(start, i), *map(self.f.size, self.strides), count
        self.f.call(name, *left, b.place, b.pitch, frame.products, frame.k)
        b.panel.run_body(frame.products, i, count)

    # ------------------------------------------------------------------ operands

    def _scalars(self, start: Value, i: Value) -> Value:
        """Emit the address of the first scalar of row i."""
        f, frame = self.f, self.frame
        if not self.packs_a:
            return frame.address(frame.a, f.mul(i, f.size(self.strides[0])))
        inside = f.sub(i, start)
        lane = f.value(f"and i64 {inside}, {CHUNK - 1}")
        return frame.address(self.block, f.add(f.mul(f.sub(inside, lane), frame.k), lane))

    def _pack_a(self, start: Value, end: Value) -> None:
        """Emit the packing of a: for each chunk of rows, k rows of their scalars."""
        f, frame = self.f, self.frame
        masked = not _divides(self.kernel.m, CHUNK)
        copy = emit_copy(frame.module, frame.tile, CHUNK // frame.tile.lanes, masked)
        for i in f.each(start, end, CHUNK):
            target = frame.address(self.block, f.mul(f.sub(i, start), frame.k))
            source = frame.address(frame.a, i), f.size(frame.rows_a), f.sub(end, i)
            f.call(copy, *source, target, frame.k)

    def _panel_of_b(self, rows: Range, panel: Panel) -> _Placed:
        """Emit the address of a panel of b, packed if that pays, and the elements between rows."""
        f, frame = self.f, panel.frame
        if frame.packed:
            return _Placed(panel, panel.stored(), str(panel.pitch))
        width = str(panel.vectors * panel.frame.tile.lanes)
        if self.kernel.trans_b or panel.masked:
            self._pack_b(panel)
            return _Placed(panel, self.panel, width)
        count = f.sub(*rows[::-1])
        fit = map(self._held_in_place, (ROWS_A_SET_OF_MANY, ROWS_A_SET))
        held = f.select(f.less(MANY, count), "i64", *fit)
        packs = f.both(f.less(held, frame.k), f.less(CHUNK, count))
        f.when(packs, lambda: self._pack_b(panel))
        place = frame.address(frame.b, panel.column)
        place = f.select(packs, "ptr", self.panel, place)
        pitch = f.select(packs, "i64", width, f.size(frame.rows_b))
        return _Placed(panel, place, pitch)

    def _held_in_place(self, rows_a_set: int) -> int:
        """Return how many rows of a panel of b the second-level cache holds without packing.

        Rows that are a power of two apart, as a batch may be, fall on few of its sets.
        """
        if not isinstance(self.frame.rows_b, int):
            return rows_a_set
        pitch = self.frame.pitch_b * ITEMSIZE[self.frame.tile.dtype]
        places = SETS // gcd(pitch // LINE, SETS) if pitch % LINE == 0 else SETS
        return min(places * rows_a_set, SETS * 2)

    def _pack_b(self, panel: Panel) -> None:
        """Emit the packing of a panel of b: k rows of its columns."""
        frame, first = panel.frame, panel.column
        if self.kernel.trans_b:
            first = self.f.mul(first, self.f.size(frame.rows_b))
        panel.pack(frame.address(frame.b, first), self.panel, frame.k)


def _divides(dim: Dim, size: int) -> bool:
    return (dim.factor if isinstance(dim, Batch) else dim) % size == 0
