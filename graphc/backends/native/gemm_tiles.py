"""A matrix product by register tiles, over packed operands."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd

from graphc.backends.native.gemm_frame import Frame, Scratch
from graphc.backends.native.ir import Value
from graphc.backends.native.packing import emit_copy, emit_transpose
from graphc.backends.native.tile import LINE, emit_tile
from graphc.kernels.kernel import CHUNK
from graphc.tensor_type import ITEMSIZE, Batch, Dim

SETS = 1024
ROWS_A_SET = 32
"""Of a second cache, and how many rows of b may fall on one set: measured, more than its ways."""

Work = Callable[[Value, int], None]
"""What is done at a row with so many rows."""

Ask = tuple[Value, int, Value]
"""The arguments of a tile by which it asks for memory: where, the elements between rows, and by
what p is shifted to make the number of a row."""


class Tiles:
    """Blocks of rows; in each the panels of columns; in each the tiles.

    A panel of b, which every tile of a column reads, is packed where a cache near the core would
    not hold it in place.  Where a is stored (k, m) and read by several panels, it is packed by
    blocks of rows that stay near the core; else its scalars are read in place.
    """

    def __init__(self, frame: Frame) -> None:
        f, tile = frame.f, frame.tile
        self.frame, self.f, self.kernel = frame, f, frame.kernel
        self.packs_a = frame.kernel.trans_a and frame.scratch.columns > self._read_in_place()
        self.strides = (frame.pitch_a, 1)
        if frame.kernel.trans_a:
            self.strides = (1, CHUNK if self.packs_a else frame.pitch_a)
        self.panel = frame.workspace
        self.block = ""
        self.size = f.mul(f.add(frame.k, tile.lanes), tile.width)

    def _read_in_place(self) -> int:
        """The most columns for which a that is stored (k, m) is not packed: one panel where the
        rows of a fall on few lines of a cache, else some."""
        frame = self.frame
        collide = frame.pitch_a * ITEMSIZE[frame.tile.dtype] % (16 * LINE) == 0
        return frame.tile.width * (1 if collide else 4)

    def emit(self, rows: tuple[Value, Value], panels: tuple[Value, Value]) -> None:
        """The rows and panels from and to."""
        f = self.f
        if not self.packs_a:
            some = f.value(f"icmp slt i64 {rows[0]}, {rows[1]}")
            f.when(some, lambda: self._panels(rows, panels))
            return
        self.block = self.frame.address(self.panel, self.size)
        height = self._block_height()

        def block(start: Value, _: list[Value]) -> None:
            end = f.smaller(f.add(start, height), rows[1])
            self._pack_a(start, end)
            self._panels((start, end), panels)

        f.loop(rows[0], rows[1], height, block)

    def _block_height(self) -> Value:
        """Rows whose packed scalars stay near the core."""
        fit = self.f.value(f"udiv i64 {Scratch.ELEMENTS}, {self.f.larger(self.frame.k, 1)}")
        fit = self.f.value(f"and i64 {fit}, {-CHUNK}")
        return self.f.larger(self.f.smaller(fit, Scratch.BLOCK), Scratch.LEAST)

    def _panels(self, rows: tuple[Value, Value], panels: tuple[Value, Value]) -> None:
        def panel(vectors: int, rest: int) -> Callable[[Value], None]:
            def at(column: Value) -> None:
                panel = self._panel_of_b(rows, column, vectors, rest)
                heights = self.frame.tile.heights(vectors)
                self._cut(rows, heights, self._tile(rows, column, vectors, rest, panel))

            return at

        self.frame.each_panel(*panels, panel)

    def _cut(self, rows: tuple[Value, Value], heights: tuple[int, ...], work: Work) -> None:
        """Full tiles, then halves of them for the rows that are left."""
        f, height = self.f, heights[0]
        count = f.sub(rows[1], rows[0])
        row = f.add(rows[0], f.value(f"and i64 {count}, {-height}"))
        f.loop(rows[0], row, height, lambda i, _: work(i, height))
        for rest in heights[1:]:
            if _may_remain(self.kernel.m, rest, height):
                some = f.value(f"and i64 {count}, {rest}")
                self._rest(f.value(f"icmp ne i64 {some}, 0"), row, rest, work)
                row = f.add(row, some)

    def _rest(self, some: Value, row: Value, rest: int, work: Work) -> None:
        self.f.when(some, lambda: work(row, rest))

    def _tile(
        self,
        rows: tuple[Value, Value],
        column: Value,
        vectors: int,
        rest: int,
        panel: tuple[Value, Value],
    ) -> Work:
        f, frame = self.f, self.frame
        full = frame.tile.heights(vectors)[0]
        shift = self._halvings(f.value(f"udiv i64 {f.sub(*rows[::-1])}, {full}"))
        per_line = LINE // ITEMSIZE[frame.tile.dtype]
        ragged = any(frame.memory.pitches[buffer] % per_line for buffer in frame.matrices)

        def tile(i: Value, height: int) -> None:
            asks: list[Ask] = []
            strides = None
            if height == full:
                strides = self.strides
                number = f.value(f"udiv i64 {f.sub(i, rows[0])}, {full}")
                asks = [self._next_panel(number, column, shift)]
                asks += self._next_rows(f.add(i, full), column, full)
            name = emit_tile(frame.module, frame.tile, height, vectors, strides, len(asks), ragged)
            ahead = "".join(f", ptr {a}, i64 {apart}, i64 {s}" for a, apart, s in asks)
            f.do(
                f"call void @{name}(ptr {self._scalars(rows[0], i)}, i64 {self.strides[0]}, "
                f"i64 {self.strides[1]}, ptr {panel[0]}, i64 {panel[1]}, ptr {frame.products}, "
                f"i64 {frame.k}{ahead})"
            )
            frame.finish(vectors, rest, frame.products, i, height, column)

        return tile

    # ------------------------------------------------------------------ what is needed next

    def _next_panel(self, number: Value, column: Value, shift: Value) -> Ask:
        """The share of the tile with this number in the next panel of b: some of its k rows, or,
        where b is stored (n, k), one of its columns."""
        f, frame, width = self.f, self.frame, self.frame.tile.width
        following = f.add(column, width)
        if self.kernel.trans_b:
            index = f.mul(f.add(following, number), frame.pitch_b)
            return frame.address(frame.b, index), width, str(width.bit_length() - 1)
        share = f.mul(f.value(f"lshr i64 {frame.k}, {shift}"), frame.pitch_b)
        place = frame.address(frame.address(frame.b, following), f.mul(number, share))
        return place, frame.pitch_b, shift

    def _next_rows(self, i: Value, column: Value, height: int) -> list[Ask]:
        """What the body reads and writes of the next rows."""
        f, frame = self.f, self.frame
        shift = self._halvings(f.value(f"udiv i64 {frame.k}, {height}"))
        asks: list[Ask] = []
        for buffer in frame.matrices:
            pitch = frame.memory.pitches[buffer]
            index = f.add(f.mul(i, pitch), column)
            asks.append((frame.address(frame.memory.arguments[buffer], index), pitch, shift))
        return asks

    def _halvings(self, number: Value) -> Value:
        """The logarithm of a number to base 2, rounded down; of 0 it is 0."""
        self.frame.module.declare("declare i64 @llvm.ctlz.i64(i64, i1)")
        zeros = self.f.value(f"call i64 @llvm.ctlz.i64(i64 {self.f.larger(number, 1)}, i1 true)")
        return self.f.sub(63, zeros)

    # ------------------------------------------------------------------ operands

    def _scalars(self, start: Value, i: Value) -> Value:
        """Where the scalars of row i begin."""
        f, frame = self.f, self.frame
        if not self.packs_a:
            return frame.address(frame.a, f.mul(i, self.strides[0]))
        inside = f.sub(i, start)
        lane = f.value(f"and i64 {inside}, {CHUNK - 1}")
        return frame.address(self.block, f.add(f.mul(f.sub(inside, lane), frame.k), lane))

    def _pack_a(self, start: Value, end: Value) -> None:
        """For each chunk of rows, k rows of their scalars."""
        f, frame = self.f, self.frame
        masked = not _divides(self.kernel.m, CHUNK)
        copy = emit_copy(frame.module, frame.tile, CHUNK // frame.tile.lanes, masked)

        def chunk(i: Value, _: list[Value]) -> None:
            target = frame.address(self.block, f.mul(f.sub(i, start), frame.k))
            f.do(
                f"call void @{copy}(ptr {frame.address(frame.a, i)}, i64 {frame.pitch_a}, "
                f"i64 {f.sub(end, i)}, ptr {target}, i64 {frame.k})"
            )

        f.loop(start, end, CHUNK, chunk)

    def _panel_of_b(
        self, rows: tuple[Value, Value], column: Value, vectors: int, rest: int
    ) -> tuple[Value, Value]:
        """Where a panel of b is, and the elements between its rows.

        It is packed where many tiles read it and a cache near the core cannot hold it as it is.
        """
        f, frame, width = self.f, self.frame, str(vectors * self.frame.tile.lanes)
        if self.kernel.trans_b or rest % frame.tile.lanes:
            self._pack_b(column, vectors, rest)
            return self.panel, width
        many = f.value(f"icmp sgt i64 {f.sub(*rows[::-1])}, {CHUNK}")
        long = f.value(f"icmp sgt i64 {frame.k}, {self._held_in_place()}")
        packs = f.value(f"and i1 {many}, {long}")
        f.when(packs, lambda: self._pack_b(column, vectors, rest))
        place = frame.address(frame.b, column)
        panel = f.value(f"select i1 {packs}, ptr {self.panel}, ptr {place}")
        return panel, f.value(f"select i1 {packs}, i64 {width}, i64 {frame.pitch_b}")

    def _held_in_place(self) -> int:
        """How many rows of a panel of b stay in the second cache where they are.

        Rows that are a power of two apart fall on few of its sets.
        """
        pitch = self.frame.pitch_b * ITEMSIZE[self.frame.tile.dtype]
        places = SETS // gcd(pitch // LINE, SETS) if pitch % LINE == 0 else SETS
        return min(places * ROWS_A_SET, SETS * 2)

    def _pack_b(self, column: Value, vectors: int, rest: int) -> None:
        """k rows of a panel's columns."""
        frame = self.frame
        if self.kernel.trans_b:
            name = emit_transpose(frame.module, frame.tile, vectors)
            source = frame.address(frame.b, self.f.mul(column, frame.pitch_b))
        else:
            name = emit_copy(frame.module, frame.tile, vectors, rest % frame.tile.lanes != 0)
            source = frame.address(frame.b, column)
        self.f.do(
            f"call void @{name}(ptr {source}, i64 {frame.pitch_b}, "
            f"i64 {rest or frame.tile.width}, ptr {self.panel}, i64 {frame.k})"
        )


def _may_remain(dim: Dim, rest: int, height: int) -> bool:
    """Whether `rest` rows can be left over when the dimension is cut into tiles."""
    if isinstance(dim, Batch):
        return not _divides(dim, height)
    return bool(dim % height & rest)


def _divides(dim: Dim, size: int) -> bool:
    return (dim.factor if isinstance(dim, Batch) else dim) % size == 0
