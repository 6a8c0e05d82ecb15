"""Gradients of filters in bfloat16, in the order of blocks: sums over the places of images.

Each image has blocks of its own: see `block_products`.  A unit is 16 rows of the result, or fewer
at the end of an offset's channels.
"""

from __future__ import annotations

from functools import partial

from graphc.backends.native.bfloat16_scratch import BlockPlacesScratch
from graphc.backends.native.block_products import (
    TILE,
    add_products,
    in_registers,
    pack_blocks,
    transpose_rows,
)
from graphc.backends.native.gemm_frame import Frame, Panel
from graphc.backends.native.gemm_long import LongSums
from graphc.backends.native.held_images import HeldImages, offset_start, place_start
from graphc.backends.native.ir import Function, Range, Value
from graphc.backends.native.vectors import Vectors
from graphc.ir.forms import BLOCK
from graphc.kernels.kernel import CHUNK


class BlockPlaces(LongSums):
    """The loops over units, groups of panels, images, blocks of an image's places, and panels."""

    scratch: BlockPlacesScratch

    def __init__(self, frame: Frame, scratch: BlockPlacesScratch) -> None:
        super().__init__(frame)
        self.window, self.panel_sums = scratch.kernel.window, str(scratch.panel_sums)
        self.starts = frame.address(self.sums, scratch.panel_sums * scratch.together)
        copy = frame.address(self.starts, scratch.addresses)
        self.images = HeldImages(frame, self.window, copy)
        self.of_offset = -(-self.window.channels // CHUNK)

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product for ranges of rows and panels."""
        in_registers(self.frame, rows, partial(self._all, rows, panels))

    def _all(self, rows: Range, panels: Range) -> None:
        """Emit the loops over some units and some panels at a time."""
        f, scratch = self.f, self.scratch
        first, end = self._unit(rows[0]), f.add(self._unit(f.sub(rows[1], 1)), 1)
        self.images.clear(scratch.copied)
        for start in f.each(first, end, scratch.units):
            stop = f.smaller(f.add(start, scratch.units), end)
            for panel in f.each(*panels, scratch.together):
                last = f.smaller(f.add(panel, scratch.together), panels[1])
                self._sum_images(rows, (start, stop), (panel, last))

    def _unit(self, row: Value) -> Value:
        """Emit the number of the unit of a row."""
        f, channels = self.f, self.window.channels
        inside = f.quotient(f.remainder(row, channels), CHUNK)
        return f.add(f.mul(f.quotient(row, channels), self.of_offset), inside)

    def _sum_images(self, rows: Range, units: Range, panels: Range) -> None:
        """Emit the sums of some units and panels over all images, and the body."""
        f, frame, count, depth = self.f, self.frame, self.window.count, self.scratch.depth
        self.first = panels[0]
        images = f.size(self.scratch.kernel.images)
        f.when(f.less(images, 1), lambda: self.clear(panels))  # a loop of no steps
        for number in f.each(0, images):
            start, top = self.images.read(number, f.add(number, 1)), f.mul(number, count)
            for p in f.each(0, count, depth):
                k, row = f.smaller(f.sub(count, p), depth), f.add(top, p)
                self._store_starts(start, p, k)
                self._pack_units(units, k)
                for panel in frame.each_panel(panels):
                    self._multiply(panel, units, row, k)
        for panel in frame.each_panel(panels):
            self._run_bodies(panel, rows, units)

    def _store_starts(self, start: Value, p: Value, k: Value) -> None:
        """Emit the addresses of what the first offset of the filter reads at some places."""
        f = self.f
        for i in f.each(0, k):
            at = f.address(start, place_start(f, self.window, f.add(p, i)), "i16")
            f.do(f"store ptr {at}, ptr {f.address(self.starts, i, 'i64')}")

    def _pack_units(self, units: Range, k: Value) -> None:
        """Emit the packing of the rows of some units, at k places."""
        f, frame, channels = self.f, self.frame, self.window.channels
        full = channels % CHUNK == 0
        arguments = "ptr %starts, i64 %offset, i64 %rows, i64 %k, ptr %to"
        emit, key = partial(_pack_places, full), ("pack places", full)
        pack, blocks = frame.module.function("pack", arguments, emit, key), f.ceiling(k, BLOCK)
        for number in f.each(*units):
            channel = f.mul(f.remainder(number, self.of_offset), CHUNK)
            start = offset_start(f, self.window, f.quotient(number, self.of_offset))
            rows = f.smaller(f.sub(channels, channel), CHUNK)
            target = f.mul(f.mul(f.sub(number, units[0]), blocks), TILE)
            to = frame.address(self.block, target)
            f.call(pack, self.starts, f.add(start, channel), rows, k, to)

    def _multiply(self, panel: Panel, units: Range, row: Value, k: Value) -> None:
        """Emit the products of k places, from a row of b on, added to the sums of a panel."""
        f, frame = self.f, panel.frame
        first = f.add(f.mul(row, frame.pitch_b), panel.column)
        pack_blocks(panel, frame.factor(frame.b, first), frame.pitch_b, self.panel, k)
        a = self.block, f.mul(f.sub(units[1], units[0]), CHUNK)
        add_products(panel, a, self.panel, f.ceiling(k, BLOCK), self._sums(panel), row)

    def _run_bodies(self, panel: Panel, rows: Range, units: Range) -> None:
        """Emit the body of the rows of some units that are this thread's."""
        f, frame, channels = self.f, panel.frame, self.window.channels
        sums, width = self._sums(panel), panel.vectors * frame.tile.lanes
        for number in f.each(*units):
            start = f.mul(f.quotient(number, self.of_offset), channels)
            top = f.add(start, f.mul(f.remainder(number, self.of_offset), CHUNK))
            end = f.smaller(f.add(top, CHUNK), f.add(start, channels))
            low, high = f.larger(top, rows[0]), f.smaller(end, rows[1])
            row = f.add(f.mul(f.sub(number, units[0]), CHUNK), f.sub(low, top))
            panel.run_body(frame.address(sums, f.mul(row, width)), low, f.sub(high, low))


def _pack_places(full: bool, f: Function) -> None:
    """Emit the tiles of `%rows` neighbours at each of k places; `full` units have 16 rows."""
    v, last = Vectors(f, CHUNK), f.sub("%k", 1)

    def block(p: Value, whole: bool) -> None:
        rows, masks = [], []
        for i in range(BLOCK):
            number = f.add(p, i)
            at = number if whole else f.smaller(number, last)
            start = f.value(f"load ptr, ptr {f.address('%starts', at, 'i64')}")
            rows.append(f.address(start, "%offset", "i16"))
            existing = "%rows" if whole else f.select(f.less(number, "%k"), "i64", "%rows", 0)
            masks.append(None if whole and full else v.mask_below(existing))
        target = f.address("%to", f.mul(f.quotient(p, 2), CHUNK), "i32")
        transpose_rows(v, rows, masks, target)

    end = f.round_down("%k", BLOCK)
    f.loop(0, end, BLOCK, lambda p, _: block(p, True))
    f.when(f.less(end, "%k"), lambda: block(end, False))
