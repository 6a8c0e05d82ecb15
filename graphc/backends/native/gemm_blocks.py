"""Products of matrices of bfloat16 in the order of blocks: see `block_products`."""

from __future__ import annotations

from functools import partial

from graphc.backends.native.block_products import (
    PAIRS,
    add_products,
    emit_pack_tiles,
    fill,
    in_registers,
)
from graphc.backends.native.gemm_frame import Panel, emit_copy
from graphc.backends.native.gemm_pairs import PairSums
from graphc.backends.native.gemm_scratch import K_BLOCK
from graphc.backends.native.ir import Range, Value
from graphc.ir.bfloat16 import BLOCK
from graphc.kernels.kernel import CHUNK

TOGETHER = 8
"""The rows on which the body runs at a time."""


class BlockSums(PairSums):
    """The loops over blocks of rows, groups of panels, blocks of k, and panels."""

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product for ranges of rows and panels."""
        in_registers(self.frame, rows, partial(super().emit, rows, panels))

    def _group(self, rows: Range, panels: Range) -> None:
        """Emit the sums of a group of panels, and the body."""
        f, frame = self.f, self.frame
        self.first, self.count = panels[0], f.sub(rows[1], rows[0])
        self.panel_sums = f.mul(f.mul(f.ceiling(self.count, CHUNK), CHUNK), frame.tile.width)

        def block(p: Value, _: list[Value]) -> None:
            k = f.smaller(f.sub(frame.k, p), K_BLOCK)
            self.pack_a(rows, p, k)
            frame.each_panel(panels, lambda panel: self._multiply(panel, p, k))

        f.loop(0, frame.k, K_BLOCK, block)
        self._run_bodies(rows[0], panels)

    def _multiply(self, panel: Panel, p: Value, k: Value) -> None:
        """Emit the products of a block of k, added to the sums of a panel."""
        a, b = (self.block, self.count), self.rows_of_b(panel, p, k)
        add_products(panel, a, b, self.f.ceiling(k, BLOCK), self._sums(panel), p)

    def _run_bodies(self, row: Value, panels: Range) -> None:
        """Emit the body, for some rows of all panels at a time: memory is read row by row."""
        f = self.f

        def some(i: Value, _: list[Value]) -> None:
            count = f.smaller(f.sub(self.count, i), TOGETHER)

            def body(panel: Panel) -> None:
                place = f.mul(i, panel.vectors * panel.frame.tile.lanes)
                sums = self.frame.address(self._sums(panel), place)
                panel.run_body(sums, f.add(row, i), count)

            self.frame.each_panel(panels, body)

        f.loop(0, self.count, TOGETHER, some)

    def pack_a(self, rows: Range, p: Value, k: Value) -> None:
        """Emit the packing of a block of a."""
        f, frame, transposed = self.f, self.frame, self.frame.kernel.trans_a
        pack, pitch = emit_pack_tiles(frame.module, transposed), f.size(frame.rows_a)
        blocks = f.ceiling(k, BLOCK)

        def chunk(i: Value, _: list[Value]) -> None:
            source = self._place(frame.a, f.add(rows[0], i), p, pitch, not transposed)
            target = frame.address(self.block, f.mul(i, f.mul(blocks, PAIRS)))
            f.call(pack, source, pitch, f.sub(self.count, i), target, k)

        f.loop(0, self.count, CHUNK, chunk)

    def rows_of_b(self, panel: Panel, p: Value, k: Value) -> Value:
        """Emit the packing of k rows of a panel in whole blocks, and return their address.

        A panel that is stored so is copied if it is narrow, and where its last block is not whole.
        """
        f, frame = self.f, panel.frame
        if not frame.packed:
            super().rows_of_b(panel, p, k)
            fill(panel, self.panel, k)
            return self.panel
        stored = panel.stored_pairs(p)

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
