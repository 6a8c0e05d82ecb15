"""Matrix products with long sums: panels by blocks of k, which stay in a cache near the core.

The sums of a panel wait in a thread's memory between blocks.  They are still added in the order
of k, so the result has the same bits as one long sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from graphc.backends.native.gemm_frame import Frame, Panel
from graphc.backends.native.gemm_sizes import LINE, Tile
from graphc.backends.native.gemm_tile import Steps
from graphc.backends.native.ir import Function, Module, Range, Value
from graphc.backends.native.registers import element_type
from graphc.backends.native.vectors import Vectors
from graphc.ir.tensor_type import ITEMSIZE

UNROLL = 2

_ARGUMENTS = (
    ("ptr", "%s"),
    ("i64", "%count"),
    ("ptr", "%v"),
    ("i64", "%k"),
    ("ptr", "%sums"),
    ("ptr", "%next"),
    ("i64", "%apart"),
)


class Blocks:
    """The loops over panels of columns, in each over blocks of k, in each over the row tiles."""

    def __init__(self, frame: Frame) -> None:
        assert not frame.kernel.trans_a and isinstance(frame.kernel.k, int)
        self.frame, self.f, self.k = frame, frame.f, frame.kernel.k
        self.size = frame.scratch.k_block
        self.packed = frame.workspace
        self.sums = frame.address(self.packed, frame.scratch.panel(self.size))

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product for a range of rows and a range of panels."""
        some = self.f.value(f"icmp slt i64 {rows[0]}, {rows[1]}")
        body = partial(self._panel, rows)
        self.f.when(some, lambda: self.frame.each_panel(panels, body))

    def _panel(self, rows: Range, panel: Panel) -> None:
        f, frame = self.f, panel.frame
        count, size = f.sub(rows[1], rows[0]), self.size
        full = self.k // size * size
        clear = _emit_clear(frame.module, frame.tile, panel.vectors)
        f.do(f"call void @{clear}(ptr {self.sums}, i64 {count})")
        f.loop(0, full, size, lambda p, _: self._block(rows[0], count, p, size, panel))
        if full < self.k:
            self._block(rows[0], count, str(full), self.k - full, panel)
        panel.finish(self.sums, rows[0], count)

    def _block(self, row: Value, count: Value, p: Value, k: int, panel: Panel) -> None:
        f, frame = self.f, panel.frame
        panel.pack(self._place(p, panel.column), self.packed, k)
        name = _emit_block(frame, panel.vectors)
        s = frame.address(frame.a, f.add(f.mul(row, frame.pitch_a), p))
        f.do(
            f"call void @{name}(ptr {s}, i64 {count}, ptr {self.packed}, "
            f"i64 {k}, ptr {self.sums}, ptr {self._following(p, k, panel)}, i64 {frame.pitch_b})"
        )

    def _following(self, p: Value, k: int, panel: Panel) -> Value:
        """Emit the address at which the block that is packed next begins."""
        f = self.f
        after = f.add(p, k)
        ends = f.value(f"icmp eq i64 {after}, {self.k}")
        here = self._place(after, panel.column)
        there = self._place("0", f.add(panel.column, self.frame.tile.width))
        return f.value(f"select i1 {ends}, ptr {there}, ptr {here}")

    def _place(self, p: Value, column: Value) -> Value:
        """Emit the address of a column in row p of b."""
        f, frame = self.f, self.frame
        major, minor = (column, p) if frame.kernel.trans_b else (p, column)
        return frame.address(frame.b, f.add(f.mul(major, frame.pitch_b), minor))


def _emit_clear(module: Module, tile: Tile, vectors: int) -> str:
    """Emit the function that sets the sums of full tiles of rows to zero; return its name."""

    def emit(f: Function) -> None:
        v, element, height = Vectors(module, f, tile.lanes), element_type(tile.dtype), tile.height
        rows = f.value(f"udiv i64 {f.add('%count', height(vectors) - 1)}, {height(vectors)}")

        def vector(i: Value, _: list[Value]) -> None:
            v.store(v.const(0, tile.dtype), f.address("%sums", i, element), tile.dtype)

        end = f.mul(f.mul(rows, height(vectors)), vectors * tile.lanes)
        f.loop(0, end, tile.lanes, vector)

    key = ("clear", tile.dtype, tile.lanes, vectors)
    return module.function("clear", (("ptr", "%sums"), ("i64", "%count")), emit, key)


def _emit_block(frame: Frame, vectors: int) -> str:
    """Emit the function that adds `%count` rows times k rows of a packed panel to sums.

    The rows of the panel and the sums are full vectors.  Meanwhile it prefetches the block at
    `%next`.  The last tile may have fewer rows: then it repeats the last row.
    """
    module, tile, size = frame.module, frame.tile, frame.scratch.k_block
    following = (size, _lines(frame, tile.width))
    if frame.kernel.trans_b:
        following = (tile.width, _lines(frame, size))

    def emit(f: Function) -> None:
        v = Vectors(module, f, tile.lanes)
        _Block(v, tile, vectors, frame.pitch_a, size, following).emit()

    key = ("block", tile.dtype, tile.lanes, vectors, frame.pitch_a, size, following)
    return module.function("block", _ARGUMENTS, emit, key)


def _lines(frame: Frame, columns: int) -> int:
    """Return the most cache lines that this many columns of a row of b lie in."""
    line = LINE // ITEMSIZE[frame.tile.dtype]
    return -(-columns // line) + bool(frame.pitch_b % line)


class _Block:
    """The code of the tiles of one block."""

    def __init__(
        self,
        v: Vectors,
        tile: Tile,
        vectors: int,
        pitch: int,
        size: int,
        following: tuple[int, int],
    ) -> None:
        """`pitch` is that of s, `size` the usual k of a block.

        `following` are the rows of the next block of b, and the cache lines in each.
        """
        self.v, self.f, self.dtype, self.pitch = v, v.function, tile.dtype, pitch
        self.element, self.vectors = element_type(tile.dtype), vectors
        self.height, self.width = tile.height(vectors), vectors * tile.lanes
        self.line, self.size, self.following = LINE // ITEMSIZE[tile.dtype], size, following

    def emit(self) -> None:
        """Emit the full tiles, and one tile of the remaining rows."""
        f, height = self.f, self.height
        tiles = f.value(f"udiv i64 {f.add('%count', height - 1)}, {height}")
        share = f.value(f"udiv i64 {self.following[0] * self.following[1]}, {tiles}")
        full = f.even("%count", height)
        offsets = [r * self.pitch for r in range(height)]
        f.loop(0, full, height, lambda i, _: self._tile(i, offsets, share))
        last = f.sub(f.sub("%count", full), 1)
        some = f.value(f"icmp sge i64 {last}, 0")
        rest = [f.mul(self.pitch, f.smaller(r, last)) for r in range(height)]
        f.when(some, lambda: self._tile(full, rest, share))

    def _tile(self, i: Value, offsets: Sequence[Value | int], share: Value) -> None:
        """Emit the tile that begins at row i."""
        f, v = self.f, self.v
        steps = Steps(v, self.dtype, self.vectors, offsets, "1")
        s = f.address("%s", f.mul(i, self.pitch), self.element)
        sums = f.address("%sums", f.mul(i, self.width), self.element)
        numbers = range(self.height * self.vectors)
        places = [f.address(sums, number * v.lanes, self.element) for number in numbers]
        start = [v.load(place, self.dtype) for place in places]
        of_next = f.mul(f.value(f"udiv i64 {i}, {self.height}"), share)
        below = f.address(s, self.height * self.pitch, self.element)

        def before(p: Value) -> None:
            self._ask_for_rows(below, p)
            self._ask_for_next(f.add(of_next, self._part(p, share)))

        totals = steps.run((s, "%v"), str(self.width), "%k", UNROLL, before, start)
        for place, total in zip(places, totals, strict=True):
            v.store(total, place, self.dtype)

    def _part(self, p: Value, of: Value | int) -> Value:
        """Emit the number of the prefetch due at p, of `of` spread over k to delay nothing."""
        return self.f.value(f"udiv i64 {self.f.mul(p, of)}, {self.size}")

    def _ask_for_rows(self, below: Value, p: Value) -> None:
        """Prefetch the tile below: the processor predicts the rows, but not where they begin."""
        lines = self.size // self.line
        self._ask(below, self._part(p, self.height * lines), lines, self.pitch)

    def _ask_for_next(self, line: Value) -> None:
        """Prefetch a line of the block that is packed next."""
        self._ask("%next", line, self.following[1], "%apart")

    def _ask(self, base: Value, number: Value, lines: int, pitch: Value | int) -> None:
        """Prefetch a cache line, by its number in rows of `lines` lines each."""
        f = self.f
        row = f.mul(f.value(f"udiv i64 {number}, {lines}"), pitch)
        inside = f.mul(f.value(f"urem i64 {number}, {lines}"), self.line)
        self.v.prefetch(f.address(base, f.add(row, inside), self.element), write=False)
