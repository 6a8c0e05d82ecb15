"""Products that add up many rows of a batch, as the gradients of weights do.

    out(i, j) = sum over p of a(p, i) * b(p, j), for thousands of p and few i and j

Both factors are packed by blocks of p that a cache near the core holds, and the sums of all columns
stay there meanwhile.  Each element is added up in the order of p, as without blocks.
"""

from __future__ import annotations

from graphc.backends.native.gemm_frame import Frame, Panel, emit_copy
from graphc.backends.native.gemm_scratch import K_BLOCK, LongScratch
from graphc.backends.native.gemm_tile import UNROLL, Steps
from graphc.backends.native.ir import Function, Range, Value
from graphc.backends.native.loop_structure import clear
from graphc.backends.native.vectors import Vectors, element_type
from graphc.kernels.kernel import CHUNK


class LongSums:
    """The loops over groups of panels, in each over blocks of k, in each over panels and tiles."""

    scalars = 1
    """The scalars of a row in a step."""

    def __init__(self, frame: Frame) -> None:
        scratch = frame.scratch
        assert isinstance(scratch, LongScratch), "the scratch of a long sum"
        self.frame, self.f, self.scratch = frame, frame.f, scratch
        self.panel = frame.workspace
        self.block = frame.address(self.panel, scratch.panel_block)
        self.sums = frame.address(self.block, scratch.rows_block)

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product for ranges of rows and panels."""
        f, together = self.f, self.scratch.together
        for _ in f.only_if(f.less(*rows)):
            for first in f.each(*panels, together):
                self._group(rows, (first, f.smaller(f.add(first, together), panels[1])))

    def _group(self, rows: Range, panels: Range) -> None:
        f, frame = self.f, self.frame
        self.first, self.count = panels[0], f.sub(rows[1], rows[0])
        chunks = f.ceiling(self.count, CHUNK)
        self.panel_sums = f.mul(chunks, CHUNK * frame.tile.width)
        self.clear(panels)
        for p in f.each(0, frame.k, K_BLOCK):
            k = f.smaller(f.sub(frame.k, p), K_BLOCK)
            self.pack_a(rows, p, k)
            for panel in frame.each_panel(panels):
                self._add(panel, p, k)
        for panel in frame.each_panel(panels):
            panel.run_body(self._sums(panel), rows[0], self.count)

    def clear(self, panels: Range) -> None:
        """Emit zeros for the sums of some panels."""
        f, tile = self.f, self.frame.tile
        size = f.mul(f.sub(panels[1], panels[0]), self.panel_sums)
        clear(Vectors(f, tile.lanes), self.sums, size, tile.dtype)

    def _sums(self, panel: Panel) -> Value:
        """Emit the address of the sums of a panel."""
        f = self.f
        number = f.sub(f.quotient(panel.column, self.frame.tile.width), self.first)
        return self.frame.address(self.sums, f.mul(number, self.panel_sums))

    def _add(self, panel: Panel, p: Value, k: Value) -> None:
        """Emit the products of a block, added to the sums of a panel."""
        block = self.block, self.count, self.rows_of_b(panel, p, k), self.steps_of(k)
        self.f.call(self._emit_added(panel), *block, self._sums(panel))

    def steps_of(self, k: Value) -> Value:
        """Emit the number of steps of a tile for k factors."""
        return k

    def rows_of_b(self, panel: Panel, p: Value, k: Value) -> Value:
        """Emit the packing of k rows of a panel, and return their address."""
        f, frame = self.f, panel.frame
        place = f.add(f.mul(p, f.size(frame.rows_b)), panel.column)
        panel.pack(frame.address(frame.b, place), self.panel, k)
        return self.panel

    def pack_a(self, rows: Range, p: Value, k: Value) -> None:
        """Emit the packing of a block of a: for each chunk of rows, k rows of their scalars."""
        f, frame = self.f, self.frame
        copy = emit_copy(frame.module, frame.tile, CHUNK // frame.tile.lanes, masked=True)
        start = f.add(f.mul(p, f.size(frame.rows_a)), rows[0])
        for i in f.each(0, self.count, CHUNK):
            target = frame.address(self.block, f.mul(i, k))
            source = frame.address(frame.a, f.add(start, i))
            f.call(copy, source, f.size(frame.rows_a), f.sub(self.count, i), target, k)

    def steps(self, v: Vectors, panel: Panel) -> Steps:
        """Return the emitter of the sums of a full tile of a panel."""
        tile, vectors = panel.frame.tile, panel.vectors
        return Steps(v, tile.dtype, vectors, range(tile.height(vectors)), str(CHUNK))

    def _emit_added(self, panel: Panel) -> str:
        """Emit the function that adds products of `%k` steps of packed factors to sums.

        Tiles follow each other in `%sums`; the scalars of rows that do not exist are 0.
        """
        tile, vectors, scalars = panel.frame.tile, panel.vectors, self.scalars
        height, width = tile.height(vectors), vectors * tile.lanes

        def emit(f: Function) -> None:
            v, element = Vectors(f, tile.lanes), element_type(tile.dtype)
            steps = self.steps(v, panel)
            for i in f.each(0, "%count", height):
                lane = f.value(f"and i64 {i}, {CHUNK - 1}")
                start = f.add(f.mul(f.sub(i, lane), f.mul("%k", scalars)), lane)
                sums = f.address("%sums", f.mul(i, width), element)
                places = [f.address(sums, j * v.lanes, element) for j in range(height * vectors)]
                before = [v.load(place, tile.dtype) for place in places]
                at = f.address("%s", start, element), "%v"
                totals = steps.run(at, str(panel.pitch), "%k", UNROLL, start=before)
                for place, total in zip(places, totals, strict=True):
                    v.store(total, place, tile.dtype)

        key = ("added", tile, vectors, panel.pitch, panel.cut)
        arguments = "ptr %s, i64 %count, ptr %v, i64 %k, ptr %sums"
        return panel.frame.module.function("added", arguments, emit, key)
