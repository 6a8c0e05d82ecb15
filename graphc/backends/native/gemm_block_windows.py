"""Convolutions of bfloat16 in the order of blocks, and their input gradients.

All of b is packed, and a row of windows offset by offset of the filter, each in whole blocks of its
channels: see `block_products`.
"""

from __future__ import annotations

from functools import partial

from graphc.backends.native.bfloat16_scratch import PART, BlockWindowScratch
from graphc.backends.native.block_products import (
    PAIRS,
    TILE,
    add_products,
    copy_rows,
    in_registers,
    pack_blocks,
)
from graphc.backends.native.gemm_frame import Frame, Panel
from graphc.backends.native.held_images import HeldImages, offset_start, place_start
from graphc.backends.native.ir import Function, Range, Value
from graphc.ir.forms import BLOCK
from graphc.kernels.kernel import CHUNK


class BlockWindows:
    """The loops over images, blocks of their places, panels, and parts of the rows."""

    def __init__(self, frame: Frame, scratch: BlockWindowScratch) -> None:
        f = frame.f
        self.frame, self.f, self.scratch, self.window = frame, f, scratch, scratch.kernel.window
        self.b = frame.workspace
        self.a = frame.address(self.b, scratch.packed_b)
        self.sums = frame.address(self.a, scratch.rows_block)
        copies = frame.address(self.sums, scratch.panel_sums)
        self.images = HeldImages(frame, self.window, copies)
        self.blocks = scratch.whole // BLOCK
        self.of_offset = self.blocks // self.window.offsets

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product for ranges of rows and panels."""
        in_registers(self.frame, rows, partial(self._all, rows, panels))

    def _all(self, rows: Range, panels: Range) -> None:
        """Emit the packing of b, and the loop over images."""
        f, scratch, count = self.f, self.scratch, self.window.count
        for panel in self.frame.each_panel(panels):
            self._pack_b(panel)
        self.images.clear(scratch.copied)
        # The places of some images that are among the rows.
        for first in f.each(f.quotient(rows[0], count), f.ceiling(rows[1], count), scratch.images):
            end = f.smaller(f.add(first, scratch.images), f.ceiling(rows[1], count))
            start, top = self.images.read(first, end), f.mul(first, count)
            low, high = f.larger(rows[0], top), f.smaller(rows[1], f.mul(end, count))
            for row in f.each(low, high, scratch.rows):
                last = f.smaller(f.add(row, scratch.rows), high)
                self._pack_a(start, f.sub(row, top), f.sub(last, top))
                for panel in self.frame.each_panel(panels):
                    self._multiply(panel, row, last)

    def _multiply(self, panel: Panel, row: Value, last: Value) -> None:
        """Emit the products of some rows and a panel, and the body, part by part."""
        f, frame, b = self.f, panel.frame, self._packed(panel)
        for i in f.each(row, last, PART):
            rows = f.smaller(f.sub(last, i), PART)
            a = frame.address(self.a, f.mul(f.sub(i, row), self.blocks * PAIRS))
            add_products(panel, (a, rows), b, self.blocks, self.sums, 0)
            panel.run_body(self.sums, i, rows)

    def _packed(self, panel: Panel) -> Value:
        """Emit the address of a packed panel."""
        return self.frame.address(self.b, self.f.mul(panel.column, self.blocks * PAIRS))

    def _pack_a(self, start: Value, first: Value, end: Value) -> None:
        """Emit the packing of some places of images; a block of channels is a tile."""
        f, frame, window = self.f, self.frame, self.window
        arguments = "ptr %from, i64 %first, i64 %rows, ptr %to"
        pack = frame.module.function("pack", arguments, self._pack_places, ("pack windows", window))
        for i in f.each(first, end, CHUNK):
            target = frame.address(self.a, f.mul(f.sub(i, first), self.blocks * PAIRS))
            f.call(pack, start, i, f.sub(end, i), target)

    def _pack_places(self, f: Function) -> None:
        """Emit the packing of 16 places; the last one of `%rows` is repeated."""
        window, last = self.window, f.sub("%rows", 1)
        numbers = [f.add("%first", f.smaller(i, last)) for i in range(CHUNK)]
        rows = [f.address("%from", place_start(f, window, number), "i16") for number in numbers]
        for number in f.each(0, window.offsets):
            start = offset_start(f, window, number)
            places = [f.address(row, start, "i16") for row in rows]
            target = f.address("%to", f.mul(number, self.of_offset * TILE), "i32")
            copy_rows(f, places, target, window.channels)

    def _pack_b(self, panel: Panel) -> None:
        """Emit the packing of a panel of b, offset by offset; those of a gradient are reversed."""
        f, frame, window = self.f, panel.frame, self.window
        channels, columns = window.channels, self.scratch.columns
        pitch = channels if frame.kernel.trans_b else frame.pitch_b
        size = self.of_offset * PAIRS * panel.vectors * frame.tile.lanes
        for number in f.each(0, window.offsets):
            first = f.add(f.mul(f.mul(number, channels), pitch), panel.column)
            if frame.kernel.trans_b:
                back = f.sub(window.offsets - 1, number)
                first = f.mul(f.add(f.mul(back, columns), panel.column), channels)
            target = frame.address(self._packed(panel), f.mul(number, size))
            pack_blocks(panel, frame.factor(frame.b, first), pitch, target, channels)
