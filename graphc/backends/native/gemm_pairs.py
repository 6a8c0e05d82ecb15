"""Products of matrices of bfloat16: as long sums are, with factors that are packed in whole pairs.

The terms of a sum are added in pairs, the second one first.  A pair is packed as two numbers of
float32 in this order; or, where the processor adds the products of pairs fast, as a word of 32
bits.  An odd last factor is paired with 0.
"""

from __future__ import annotations

from graphc.backends.native.gemm_frame import Panel, packing
from graphc.backends.native.gemm_long import LongSums
from graphc.backends.native.gemm_tile import PairScratch, Tile
from graphc.backends.native.ir import Function, Module, Range, Value
from graphc.backends.native.loop_structure import each_vector
from graphc.backends.native.vectors import Vectors
from graphc.kernels.kernel import CHUNK

BITS = "uint16"
"""The dtype of the bits of a factor."""
UPPER = -(1 << 16)
"""The bits of a word that are those of its second factor."""


class PairSums(LongSums):
    """The loops of a long sum, by blocks of rows; they pack pairs of either order of storage."""

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product for ranges of rows and panels."""
        f, size = self.f, PairScratch.BLOCK

        def block(start: Value, _: list[Value]) -> None:
            super(PairSums, self).emit((start, f.smaller(f.add(start, size), rows[1])), panels)

        f.loop(*rows, size, block)

    def depth(self, k: Value) -> Value:
        """Emit the packed elements of k factors, in whole pairs."""
        f = self.f
        return f.mul(f.ceiling(k, 2), 2 // factors_of(self.frame.tile))

    def pack_b(self, panel: Panel, p: Value, k: Value) -> None:
        """Emit the packing of k rows of a panel."""
        frame, f, transposed = panel.frame, self.f, panel.frame.kernel.trans_b
        masked, pitch = panel.masked, f.size(frame.rows_b)
        pack = emit_pack(frame.module, frame.tile, panel.vectors, transposed, masked=masked)
        source = self._place(frame.b, panel.column, p, pitch, transposed)
        f.call(pack, source, pitch, panel.columns, self.panel, k)

    def pack_a(self, rows: Range, p: Value, k: Value) -> None:
        """Emit the packing of a block of a: for each chunk of rows, the pairs of their scalars."""
        f, frame, transposed = self.f, self.frame, not self.frame.kernel.trans_a
        vectors, pitch = CHUNK // frame.tile.lanes, f.size(frame.rows_a)

        def chunk(i: Value, masked: bool) -> None:
            pack = emit_pack(frame.module, frame.tile, vectors, transposed, masked=masked)
            target = frame.address(self.block, f.mul(i, self.depth(k)))
            source = self._place(frame.a, f.add(rows[0], i), p, pitch, transposed)
            f.call(pack, source, pitch, f.sub(self.count, i), target, k)

        full = f.round_down(self.count, CHUNK)
        f.loop(0, full, CHUNK, lambda i, _: chunk(i, masked=False))
        f.when(f.less(full, self.count), lambda: chunk(full, masked=True))

    def _place(self, base: Value, column: Value, p: Value, pitch: Value, transposed: bool) -> Value:
        major, minor = (column, p) if transposed else (p, column)
        return self.frame.factor(base, self.f.add(self.f.mul(major, pitch), minor))


def emit_pack(module: Module, tile: Tile, vectors: int, transposed: bool, *, masked: bool) -> str:
    """Return the function that packs the pairs of k rows of `%columns` columns.

    The rows become `vectors` vectors wide; `transposed`, they are stored as `%columns` rows of k,
    of which the last is repeated, and k is rounded up to full vectors of pairs.  Unless `masked`,
    the columns fill the vectors.
    """

    def emit(f: Function) -> None:
        pairs = _Pairs(Vectors(f, tile.lanes), tile, vectors)
        pairs.emit_transposed() if transposed else pairs.emit(masked)

    key = ("pack pairs", tile.words, tile.lanes, vectors, transposed, transposed or masked)
    return module.function("pack", packing("%columns"), emit, key)


def factors_of(tile: Tile) -> int:
    """Return the number of factors in a packed element."""
    assert tile.words is not None, "the tile is of bfloat16"
    return tile.words.factors


class _Pairs:
    """The emitter of the packing of pairs."""

    def __init__(self, v: Vectors, tile: Tile, vectors: int) -> None:
        self.v, self.f, self.vectors = v, v.function, vectors
        self.width, self.joined = vectors * v.lanes, factors_of(tile) == 2

    def emit(self, masked: bool) -> None:
        """Emit the loop over pairs of rows, and an odd last row."""
        v, f = self.v, self.f
        starts = [j * v.lanes for j in range(self.vectors)]
        masks = [v.mask_below(f.sub("%columns", start)) if masked else None for start in starts]

        def pair(p: Value, rows: int) -> None:
            for start, mask in zip(starts, masks, strict=True):
                halves = [
                    self._row(f.add(f.mul(f.add(p, i), "%pitch"), start), mask) for i in range(rows)
                ]
                word = halves[0]
                if rows > 1:
                    upper = v.binary("shl", halves[1], v.const(16, "int32"), "int32")
                    word = v.binary("or", word, upper, "int32")
                self._store(word, f.quotient(p, 2), start)

        full = f.round_down("%k", 2)
        f.loop(0, full, 2, lambda p, _: pair(p, 2))
        f.when(f.less(full, "%k"), lambda: pair(full, 1))

    def _row(self, place: Value, mask: Value | None) -> Value:
        bits = self.v.load(self.f.address("%from", place, "i16"), BITS, mask)
        return self.v.cast(bits, BITS, "int32")

    def emit_transposed(self) -> None:
        """Emit the loops over vectors of pairs and groups of rows."""
        v, f = self.v, self.f
        halves, last = Vectors(f, 2 * v.lanes), f.sub("%columns", 1)

        def square(p: Value, group: Value, mask: Value | None) -> None:
            """Emit the transpose of a vector of pairs of as many rows."""
            rows = []
            for lane in range(v.lanes):
                row = f.smaller(f.add(group, lane), last)
                bits = halves.load(
                    f.address("%from", f.add(f.mul(row, "%pitch"), p), "i16"), BITS, mask
                )
                rows.append(f.value(f"bitcast {halves.type(BITS)} {bits} to {v.type('int32')}"))
            for lane, word in enumerate(v.transpose(rows, "int32")):
                self._store(word, f.add(f.quotient(p, 2), lane), group)

        def groups(p: Value, mask: Value | None) -> None:
            f.loop(0, self.width, v.lanes, lambda group, _: square(p, group, mask))

        each_vector(halves, "%k", groups)

    def _store(self, word: Value, pair: Value, column: Value | int) -> None:
        """Emit the stores of the pairs of some columns: words, or second and first factors."""
        v, f = self.v, self.f
        rows = [word]
        if not self.joined:
            upper = v.binary("and", word, v.const(UPPER, "int32"), "int32")
            rows = [upper, v.binary("shl", word, v.const(16, "int32"), "int32")]
        first = f.mul(f.mul(pair, len(rows)), self.width)
        for i, row in enumerate(rows):
            place = f.add(f.add(first, i * self.width), column)
            v.store(row, f.address("%to", place, "i32"), "int32")
