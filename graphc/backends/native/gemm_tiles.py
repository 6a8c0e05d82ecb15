"""Matrix products by register tiles, over packed operands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import gcd

from graphc.backends.native.gemm_frame import Frame
from graphc.backends.native.gemm_strips import emit_strip
from graphc.backends.native.ir import Value
from graphc.backends.native.packing import emit_copy, emit_transpose
from graphc.backends.native.scratch import Scratch
from graphc.backends.native.tile import LINE
from graphc.backends.native.tile_ir import emit_tile
from graphc.ir.tensor_type import ITEMSIZE, Batch, Dim
from graphc.kernels.kernel import CHUNK

SETS = 1024
ROWS_A_SET = 32
"""The sets of a second cache, and the most rows of b that may fall on one set: measured, more than
its ways."""


@dataclass(frozen=True)
class _Panel:
    """A panel of b: the frame with its tile, its vectors, `rest`, and its first column.

    `rest` is the number of its columns, 0 if it is full; `place` is its address, `pitch` the
    elements between its rows.
    """

    frame: Frame
    vectors: int
    rest: int
    column: Value
    place: Value
    pitch: Value


class Tiles:
    """The loops over blocks of rows, in each over panels of columns, in each over tiles.

    A panel of b, which every tile of a column reads, is packed if a cache near the core would not
    hold it in place.  If a is stored (k, m) and read by several panels, it is packed by blocks of
    rows that stay near the core; else its scalars are read in place.
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
        """Return the most columns for which a is not packed if it is stored (k, m).

        It is one panel if the rows of a fall on few sets of a cache, else four.
        """
        frame = self.frame
        collide = frame.pitch_a * ITEMSIZE[frame.tile.dtype] % (16 * LINE) == 0
        return frame.tile.width * (1 if collide else 4)

    def emit(self, rows: tuple[Value, Value], panels: tuple[Value, Value]) -> None:
        """Emit the product for a range of rows and a range of panels."""
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
        """Emit the number of rows whose packed scalars stay in a cache near the core."""
        fit = self.f.value(f"udiv i64 {Scratch.ELEMENTS}, {self.f.larger(self.frame.k, 1)}")
        fit = self.f.value(f"and i64 {fit}, {-CHUNK}")
        return self.f.larger(self.f.smaller(fit, Scratch.BLOCK), Scratch.LEAST)

    def _panels(self, rows: tuple[Value, Value], panels: tuple[Value, Value]) -> None:
        def panel(frame: Frame, vectors: int, rest: int) -> Callable[[Value], None]:
            def at(column: Value) -> None:
                place, pitch = self._panel_of_b(frame, rows, column, vectors, rest)
                self._cut(rows, _Panel(frame, vectors, rest, column, place, pitch))

            return at

        self.frame.each_panel(*panels, panel)

    def _cut(self, rows: tuple[Value, Value], panel: _Panel) -> None:
        """Emit the full tiles, then smaller ones for the remaining rows."""
        f, height = self.f, panel.frame.tile.height(panel.vectors)
        row = f.add(rows[0], f.even(f.sub(rows[1], rows[0]), height))
        self._strip(rows[0], row, panel)
        if not _divides(self.kernel.m, height):
            f.loop(row, rows[1], self.frame.tile.rows, lambda i, _: self._rest(rows, i, panel))

    def _strip(self, first: Value, last: Value, panel: _Panel) -> None:
        f, frame = self.f, panel.frame
        strip = emit_strip(frame, panel.vectors, panel.rest, self.strides, self.packs_a)
        f.do(
            f"call void @{strip}({frame.passed}ptr {self._scalars(first, first)}, "
            f"ptr {panel.place}, i64 {panel.pitch}, i64 {frame.k}, i64 {first}, i64 {last}, "
            f"ptr {frame.products}, i64 {panel.column}, i64 {panel.rest or frame.tile.width}, "
            f"i64 {frame.m}, i64 %n)"
        )

    def _rest(self, rows: tuple[Value, Value], i: Value, panel: _Panel) -> None:
        """Emit a tile at the end, or half of one if that is enough."""
        f, height = self.f, self.frame.tile.rows
        left = f.smaller(f.sub(rows[1], i), height)
        for comparison, size in (("sle", height // 2), ("sgt", height)):
            fits = f.value(f"icmp {comparison} i64 {left}, {height // 2}")
            f.when(fits, partial(self._part, rows[0], i, left, size, panel))

    def _part(self, start: Value, i: Value, count: Value, height: int, panel: _Panel) -> None:
        """Emit `count` rows by a tile of `height`."""
        f, frame = self.f, panel.frame
        name = emit_tile(frame.module, frame.tile, height, panel.vectors)
        f.do(
            f"call void @{name}(ptr {self._scalars(start, i)}, i64 {self.strides[0]}, "
            f"i64 {self.strides[1]}, i64 {count}, ptr {panel.place}, i64 {panel.pitch}, "
            f"ptr {frame.products}, i64 {frame.k})"
        )
        frame.finish(panel.vectors, panel.rest, frame.products, i, count, panel.column)

    # ------------------------------------------------------------------ operands

    def _scalars(self, start: Value, i: Value) -> Value:
        """Emit the address of the first scalar of row i."""
        f, frame = self.f, self.frame
        if not self.packs_a:
            return frame.address(frame.a, f.mul(i, self.strides[0]))
        inside = f.sub(i, start)
        lane = f.value(f"and i64 {inside}, {CHUNK - 1}")
        return frame.address(self.block, f.add(f.mul(f.sub(inside, lane), frame.k), lane))

    def _pack_a(self, start: Value, end: Value) -> None:
        """Emit the packing of a: for each chunk of rows, k rows of their scalars."""
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
        self, frame: Frame, rows: tuple[Value, Value], column: Value, vectors: int, rest: int
    ) -> tuple[Value, Value]:
        """Emit the address of a panel of b, and the elements between its rows.

        It is packed if many tiles read it and a cache near the core cannot hold it as it is.
        """
        f, width = self.f, str(vectors * frame.tile.lanes)
        if self.kernel.trans_b or rest % frame.tile.lanes:
            self._pack_b(frame, column, vectors, rest)
            return self.panel, width
        many = f.value(f"icmp sgt i64 {f.sub(*rows[::-1])}, {CHUNK}")
        long = f.value(f"icmp sgt i64 {frame.k}, {self._held_in_place()}")
        packs = f.value(f"and i1 {many}, {long}")
        f.when(packs, lambda: self._pack_b(frame, column, vectors, rest))
        place = frame.address(frame.b, column)
        panel = f.value(f"select i1 {packs}, ptr {self.panel}, ptr {place}")
        return panel, f.value(f"select i1 {packs}, i64 {width}, i64 {frame.pitch_b}")

    def _held_in_place(self) -> int:
        """Return how many rows of a panel of b stay in the second cache without packing.

        Rows that are a power of two apart fall on few of its sets.
        """
        pitch = self.frame.pitch_b * ITEMSIZE[self.frame.tile.dtype]
        places = SETS // gcd(pitch // LINE, SETS) if pitch % LINE == 0 else SETS
        return min(places * ROWS_A_SET, SETS * 2)

    def _pack_b(self, frame: Frame, column: Value, vectors: int, rest: int) -> None:
        """Emit the packing of a panel of b: k rows of its columns."""
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


def _divides(dim: Dim, size: int) -> bool:
    return (dim.factor if isinstance(dim, Batch) else dim) % size == 0
