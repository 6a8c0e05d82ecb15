"""A matrix product by register tiles, over packed operands."""

from __future__ import annotations

from collections.abc import Callable

from graphc.backends.native.gemm_frame import Frame, Scratch
from graphc.backends.native.ir import Value
from graphc.backends.native.packing import emit_copy, emit_transpose
from graphc.backends.native.tile import emit_tile
from graphc.kernels.kernel import CHUNK
from graphc.tensor_type import Batch, Dim

Work = Callable[[Value, int], None]
"""What is done at a row with so many rows."""


class Tiles:
    """Blocks of rows; in each the panels of columns; in each the tiles.

    A panel of b is packed, for it is read by every tile of a column.  Where a is stored (k, m) its
    rows are packed by blocks that stay near the core; else its scalars are read in place.
    """

    def __init__(self, frame: Frame) -> None:
        f, tile = frame.f, frame.tile
        self.frame, self.f, self.kernel = frame, f, frame.kernel
        self.strides = (1, CHUNK) if frame.kernel.trans_a else (frame.pitch_a, 1)
        self.panel = frame.workspace
        self.block = ""
        self.size = f.mul(f.add(frame.k, tile.lanes), tile.width)

    def emit(self, rows: tuple[Value, Value], panels: tuple[Value, Value]) -> None:
        """The rows and panels from and to."""
        f = self.f
        if not self.kernel.trans_a:
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
                self._pack_b(column, vectors, rest)
                self._cut(rows, self._tile(rows, column, vectors, rest))

            return at

        self.frame.each_panel(*panels, panel)

    def _cut(self, rows: tuple[Value, Value], work: Work) -> None:
        """Full tiles, then halves of them for the rows that are left."""
        f, height = self.f, self.frame.tile.rows
        count = f.sub(rows[1], rows[0])
        row = f.add(rows[0], f.value(f"and i64 {count}, {-height}"))
        f.loop(rows[0], row, height, lambda i, _: work(i, height))
        for rest in self.frame.tile.heights[1:]:
            if _may_remain(self.kernel.m, rest, height):
                some = f.value(f"and i64 {count}, {rest}")
                self._rest(f.value(f"icmp ne i64 {some}, 0"), row, rest, work)
                row = f.add(row, some)

    def _rest(self, some: Value, row: Value, rest: int, work: Work) -> None:
        self.f.when(some, lambda: work(row, rest))

    def _tile(self, rows: tuple[Value, Value], column: Value, vectors: int, rest: int) -> Work:
        f, frame, width = self.f, self.frame, vectors * self.frame.tile.lanes
        start = rows[0]
        tiles = f.add(f.value(f"sdiv i64 {f.sub(rows[1], start)}, {frame.tile.rows}"), 1)
        zeros = f.value(f"call i64 @llvm.ctlz.i64(i64 {tiles}, i1 true)")
        shift = f.sub(63, zeros)
        share = f.mul(f.value(f"lshr i64 {frame.k}, {shift}"), frame.pitch_b)
        following = frame.address(frame.b, f.add(column, frame.tile.width))
        frame.module.declare("declare i64 @llvm.ctlz.i64(i64, i1)")

        def tile(i: Value, rows: int) -> None:
            if rows == frame.tile.rows and not rest:
                frame.prefetch(i, rows, column)
            name = emit_tile(frame.module, frame.tile, rows, vectors, self.strides)
            number = f.value(f"udiv i64 {f.sub(i, start)}, {frame.tile.rows}")
            ahead = frame.address(following, f.mul(number, share))
            f.do(
                f"call void @{name}(ptr {self._scalars(start, i)}, ptr {self.panel}, "
                f"i64 {width}, ptr {frame.products}, i64 {frame.k}, "
                f"ptr {ahead}, i64 {frame.pitch_b}, i64 {shift})"
            )
            frame.finish(vectors, rest, frame.products, i, rows, column)

        return tile

    # ------------------------------------------------------------------ operands

    def _scalars(self, start: Value, i: Value) -> Value:
        """Where the scalars of row i begin."""
        f, frame = self.f, self.frame
        if not self.kernel.trans_a:
            return frame.address(frame.a, f.mul(i, frame.pitch_a))
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

    def _pack_b(self, column: Value, vectors: int, rest: int) -> None:
        """k rows of a panel's columns."""
        frame = self.frame
        if self.kernel.trans_b:
            name = emit_transpose(frame.module, frame.tile, vectors)
            source = frame.address(frame.b, self.f.mul(column, frame.pitch_b))
        else:
            name = emit_copy(frame.module, frame.tile, vectors, bool(rest))
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
