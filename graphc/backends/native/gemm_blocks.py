"""Products of matrices of bfloat16 in the order of blocks: see `block_products`."""

from __future__ import annotations

from functools import partial

from graphc.backends.native.bfloat16_scratch import BlockMatrixScratch
from graphc.backends.native.block_products import (
    PAIRS,
    add_products,
    emit_pack_tiles,
    fill,
    in_registers,
)
from graphc.backends.native.gemm_frame import Frame, Panel, emit_copy
from graphc.backends.native.gemm_pairs import PairSums
from graphc.backends.native.ir import Range, Value
from graphc.ir.forms import BLOCK
from graphc.kernels.kernel import CHUNK

TOGETHER = 8
"""The rows on which the body runs at a time."""


class BlockSums(PairSums):
    """The loops over blocks of rows, groups of panels, blocks of k, and panels."""

    scratch: BlockMatrixScratch

    def __init__(self, frame: Frame, scratch: BlockMatrixScratch) -> None:
        super().__init__(frame)
        self.sums = self.block
        self.block = frame.address(self.sums, scratch.together * scratch.panel_sums)

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product for ranges of rows and panels."""
        self.panels = panels
        in_registers(self.frame, rows, partial(super().emit, rows, panels))

    def _group(self, rows: Range, panels: Range) -> None:
        """Emit the sums of a group of panels, and the body."""
        f, frame, depth = self.f, self.frame, self.scratch.most_depth
        self.first, self.count = panels[0], f.sub(rows[1], rows[0])
        self.full = f.mul(f.ceiling(self.count, CHUNK), CHUNK)
        self.panel_sums = f.mul(self.full, frame.tile.width)
        f.when(f.less(frame.k, 1), lambda: self.clear(panels))  # a loop of no steps
        for p in f.each(0, frame.k, depth):
            k = f.smaller(f.sub(frame.k, p), depth)
            a = self._packed_a(rows, p, k)
            for panel in frame.each_panel(panels):
                self._multiply(panel, a, p, k)
        self._run_bodies(rows[0], panels)

    def _packed_a(self, rows: Range, p: Value, k: Value) -> Value:
        """Emit the address of a packed block of a, which the first group packs if it is kept."""
        f, frame = self.f, self.frame
        if not self.scratch.holds_a:
            self._pack_a(rows, p, k, self.block)
            return self.block
        block = frame.address(self.block, f.mul(f.quotient(p, 2), self.full))
        is_first = f.less(self.first, f.add(self.panels[0], 1))
        f.when(is_first, lambda: self._pack_a(rows, p, k, block))
        return block

    def _multiply(self, panel: Panel, a: Value, p: Value, k: Value) -> None:
        """Emit the products of a block of k, added to the sums of a panel."""
        b = self.rows_of_b(panel, p, k)
        blocks = self.f.ceiling(k, BLOCK)
        add_products(panel, (a, self.count), b, blocks, self._sums(panel), p)

    def _run_bodies(self, row: Value, panels: Range) -> None:
        """Emit the body, for some rows of all panels at a time: memory is read row by row."""
        f = self.f
        for i in f.each(0, self.count, TOGETHER):
            count = f.smaller(f.sub(self.count, i), TOGETHER)
            for panel in self.frame.each_panel(panels):
                place = f.mul(i, panel.vectors * panel.frame.tile.lanes)
                sums = self.frame.address(self._sums(panel), place)
                panel.run_body(sums, f.add(row, i), count)

    def _pack_a(self, rows: Range, p: Value, k: Value, block: Value) -> None:
        """Emit the packing of a block of a."""
        f, frame, transposed = self.f, self.frame, self.frame.kernel.trans_a
        pack, pitch = emit_pack_tiles(frame.module, transposed), f.size(frame.rows_a)
        blocks = f.ceiling(k, BLOCK)
        for i in f.each(0, self.count, CHUNK):
            source = self._place(frame.a, f.add(rows[0], i), p, pitch, not transposed)
            target = frame.address(block, f.mul(i, f.mul(blocks, PAIRS)))
            f.call(pack, source, pitch, f.sub(self.count, i), target, k)

    def rows_of_b(self, panel: Panel, p: Value, k: Value) -> Value:
        """Emit the packing of k rows of a panel in whole blocks, and return their address.

        A panel that is stored so is copied if it is narrow, and where its last block is not whole.
        """
        f, frame = self.f, panel.frame
        if not frame.packed:
            super().rows_of_b(panel, p, k)
            fill(panel, self.panel, k)
            return self.panel
        stored = panel.stored(p)
        if frame.full:
            return stored

        def copied() -> None:
            copy = emit_copy(frame.module, frame.tile, panel.vectors, panel.masked)
            f.call(copy, stored, panel.pitch, panel.columns, self.panel, f.quotient(k, 2))
            fill(panel, self.panel, k)

        if panel.masked:
            copied()
            return self.panel
        part = f.less(0, f.remainder(k, BLOCK))
        f.when(part, copied)
        return f.select(part, "ptr", self.panel, stored)
