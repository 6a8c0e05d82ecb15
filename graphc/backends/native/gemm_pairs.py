"""Products of matrices of bfloat16: as long sums are, with factors that are packed in whole pairs.

The terms of a sum are added in pairs, the second one first.  A pair of b is packed as a word of 32
bits.  A pair of a, whose scalars are multiplied by vectors of b, is two numbers of float32; or a
word where the processor adds the products of pairs fast.  An odd last factor is paired with 0.
"""

from __future__ import annotations

from graphc.backends.native.gemm_frame import Frame, Panel, packing
from graphc.backends.native.gemm_long import LongSums
from graphc.backends.native.gemm_tile import Steps, Tile
from graphc.backends.native.ir import Function, Module, Range, Value
from graphc.backends.native.loop_structure import each_vector
from graphc.backends.native.target import DOTS
from graphc.backends.native.vectors import Vectors
from graphc.kernels.kernel import CHUNK

BITS = "uint16"
"""The dtype of the bits of a factor."""
UPPER = -(1 << 16)
"""The bits of a word that are those of its second factor."""


class PairSums(LongSums):
    """The loops of a long sum, by blocks of rows; they pack pairs of either order of storage."""

    def __init__(self, frame: Frame) -> None:
        super().__init__(frame)
        self.scalars = 2 // factors_of(frame.tile)

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product for ranges of rows and panels."""
        f, size = self.f, self.scratch.MOST_ROWS
        for start in f.each(*rows, size):
            super().emit((start, f.smaller(f.add(start, size), rows[1])), panels)

    def steps_of(self, k: Value) -> Value:
        """Emit the number of pairs of k factors."""
        return self.f.ceiling(k, 2)

    def steps(self, v: Vectors, panel: Panel) -> Steps:
        """Return the emitter of the sums of a full tile of a panel."""
        return PairSteps(v, panel)

    def rows_of_b(self, panel: Panel, p: Value, k: Value) -> Value:
        """Emit the packing of k rows of a panel, unless it is stored so, and their address."""
        frame = panel.frame
        if frame.packed:
            return panel.stored(p)
        pitch = self.f.size(frame.rows_b)
        source = self._place(frame.b, panel.column, p, pitch, frame.kernel.trans_b)
        pack_panel(panel, source, pitch, self.panel, k)
        return self.panel

    def pack_a(self, rows: Range, p: Value, k: Value) -> None:
        """Emit the packing of a block of a: for each chunk of rows, the pairs of their scalars."""
        f, frame, transposed = self.f, self.frame, not self.frame.kernel.trans_a
        vectors, pitch = CHUNK // frame.tile.lanes, f.size(frame.rows_a)

        def chunk(i: Value, masked: bool) -> None:
            pack = emit_pack(
                frame.module, frame.tile, vectors, transposed, self.scalars, masked=masked
            )
            target = frame.address(self.block, f.mul(i, f.mul(self.steps_of(k), self.scalars)))
            source = self._place(frame.a, f.add(rows[0], i), p, pitch, transposed)
            f.call(pack, source, pitch, f.sub(self.count, i), target, k)

        full = f.round_down(self.count, CHUNK)
        f.loop(0, full, CHUNK, lambda i, _: chunk(i, masked=False))
        f.when(f.less(full, self.count), lambda: chunk(full, masked=True))

    def _place(self, base: Value, column: Value, p: Value, pitch: Value, transposed: bool) -> Value:
        major, minor = (column, p) if transposed else (p, column)
        return self.frame.factor(base, self.f.add(self.f.mul(major, pitch), minor))


class PairSteps(Steps):
    """The emitter of sums of pairs: words of a panel of b times the scalars of a's pairs.

    Those are words too if an instruction multiplies both, or two numbers, the second one first.
    """

    def __init__(self, v: Vectors, panel: Panel) -> None:
        tile, vectors = panel.frame.tile, panel.vectors
        rows, last = range(tile.height(vectors)), panel.last_mask(v)
        super().__init__(v, tile.dtype, vectors, rows, str(CHUNK), last)
        self.joined = factors_of(tile) == 2

    def _step(self, carried: list[Value], pitch: Value) -> list[Value]:
        """Emit the products of one pair: each vector of words times each pair of scalars."""
        s, v, *sums = carried
        masks = [None] * (self.vectors - 1) + [self.last]
        words = [
            self.v.load(self.f.address(v, j * self.v.lanes, "i32"), "int32", mask)
            for j, mask in enumerate(masks)
        ]
        halves = [split(self.v, word) for word in words]
        for right in [words] if self.joined else zip(*halves, strict=True):
            for i, offset in enumerate(self.offsets):
                left = self.v.load_splat(self.f.address(s, offset, self.element), self.dtype)
                for j, vector in enumerate(right):
                    number = i * self.vectors + j
                    sums[number] = self.add(left, vector, sums[number])
            s = self.f.address(s, self.step, self.element)
        return [s, self.f.address(v, pitch, "i32"), *sums]

    def add(self, left: Value, right: Value, total: Value) -> Value:
        """Emit a sum with the product of two numbers added, or with those of a pair."""
        f, words = self.f, self.v.type("int32")
        if not self.joined:
            return self.v.fma(left, self.v.bitcast(right, "int32", self.dtype), total, self.dtype)
        type, pairs = self.v.type(self.dtype), f"<{2 * self.v.lanes} x bfloat>"
        symbol = f"@llvm.{DOTS.instruction}.{32 * self.v.lanes}"
        f.module.declare(f"declare {type} {symbol}({type}, {pairs}, {pairs})")
        a = f.value(f"bitcast {type} {left} to {pairs}")
        b = f.value(f"bitcast {words} {right} to {pairs}")
        return f.value(f"call {type} {symbol}({type} {total}, {pairs} {a}, {pairs} {b})")


def split(v: Vectors, words: Value) -> tuple[Value, Value]:
    """Emit the second and the first factors of words as the bits of float32."""
    upper = v.binary("and", words, v.const(UPPER, "int32"), "int32")
    return upper, v.binary("shl", words, v.const(16, "int32"), "int32")


def emit_pack(
    module: Module, tile: Tile, vectors: int, transposed: bool, rows: int, *, masked: bool
) -> str:
    """Return the function that packs the pairs of k rows of `%columns` columns.

    A pair is a word or, in two `rows`, its second and its first factor.  The rows become `vectors`
    vectors wide; `transposed`, they are stored as `%columns` rows of k, of which the last is
    repeated, and k is rounded up to full vectors of pairs.  Unless `masked`, the columns fill the
    vectors.
    """

    def emit(f: Function) -> None:
        pairs = _Pairs(Vectors(f, tile.lanes), vectors, rows)
        pairs.emit_transposed() if transposed else pairs.emit(masked)

    key = ("pack pairs", rows, tile.lanes, vectors, transposed, transposed or masked)
    return module.function("pack", packing("%columns"), emit, key)


def pack_panel(
    panel: Panel, source: Value, pitch: Value | int, target: Value, k: Value | int
) -> None:
    """Emit the packing of the pairs of k rows of a panel of b, which are stored at `source`."""
    frame, vectors, masked = panel.frame, panel.vectors, panel.masked
    pack = emit_pack(frame.module, frame.tile, vectors, frame.kernel.trans_b, 1, masked=masked)
    frame.f.call(pack, source, pitch, panel.columns, target, k)


def factors_of(tile: Tile) -> int:
    """Return the number of factors in a packed scalar."""
    assert tile.words is not None, "the tile is of bfloat16"
    return tile.words.factors


class _Pairs:
    """The emitter of the packing of pairs."""

    def __init__(self, v: Vectors, vectors: int, rows: int) -> None:
        self.v, self.f, self.vectors = v, v.function, vectors
        self.width, self.rows = vectors * v.lanes, rows

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
        for p, mask in each_vector(halves, "%k"):
            for group in f.each(0, self.width, v.lanes):  # a vector of pairs of as many rows
                rows = []
                for lane in range(v.lanes):
                    row = f.smaller(f.add(group, lane), last)
                    place = f.address("%from", f.add(f.mul(row, "%pitch"), p), "i16")
                    bits = halves.load(place, BITS, mask)
                    rows.append(f.value(f"bitcast {halves.type(BITS)} {bits} to {v.type('int32')}"))
                for lane, word in enumerate(v.transpose(rows, "int32")):
                    self._store(word, f.add(f.quotient(p, 2), lane), group)

    def _store(self, word: Value, pair: Value, column: Value | int) -> None:
        """Emit the stores of the pairs of some columns."""
        v, f = self.v, self.f
        first = f.mul(f.mul(pair, self.rows), self.width)
        for i, row in enumerate((word,) if self.rows == 1 else split(v, word)):
            place = f.add(f.add(first, i * self.width), column)
            v.store(row, f.address("%to", place, "i32"), "int32")
