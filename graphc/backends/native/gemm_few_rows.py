"""Products of few rows with a matrix: b is read once, in place."""

from __future__ import annotations

from graphc.backends.native.gemm_frame import Frame, Panel
from graphc.backends.native.gemm_sizes import FEW, Tile
from graphc.backends.native.ir import Function, Module, Range, Value
from graphc.backends.native.registers import element_type
from graphc.backends.native.vectors import Vectors
from graphc.ir.tensor_type import ITEMSIZE, dim_at

AT_ONCE = 8
"""Rows of b that are added to the sums in one sweep over the columns."""
FAR = 1 << 23
"""If b has this many bytes, no cache holds it until the next run: its rows are prefetched."""


class Sums:
    """The memory of a thread that holds the sums of few rows, in full panels."""

    def __init__(self, frame: Frame, first: Value) -> None:
        self.frame, self.f, self.first = frame, frame.f, first

    def place(self, i: Value, column: Value) -> Value:
        """Emit the address of the sum of row i at a column."""
        row = self.f.mul(self.f.sub(i, self.first), self.frame.scratch.row)
        return self.frame.address(self.frame.workspace, self.f.add(row, column))

    def finish(self, rows: Range, panels: Range) -> None:
        """Emit the body on all sums, row by row."""
        self.f.loop(*rows, 1, lambda i, _: self._finish(i, panels))

    def _finish(self, i: Value, panels: Range) -> None:
        def body(panel: Panel) -> None:
            panel.finish(self.place(i, panel.column), i, 1)

        self.frame.each_panel(panels, body)


class Sweeps:
    """The product of few rows, whose sums stay in a thread's memory while b is read."""

    def __init__(self, frame: Frame) -> None:
        self.frame, self.f = frame, frame.f

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product: all rows meet the same rows of b before the next ones are read."""
        frame, f = self.frame, self.f
        start = f.mul(panels[0], frame.tile.width)
        end = f.smaller(f.mul(panels[1], frame.tile.width), frame.scratch.columns)
        self.columns = (start, f.larger(f.sub(end, start), 0))
        self.rows, self.sums = rows, Sums(frame, rows[0])
        even = f.value(f"and i64 {frame.k}, {-AT_ONCE}")
        f.loop(rows[0], rows[1], 1, lambda i, _: self._clear(i))
        f.loop(0, even, AT_ONCE, lambda p, _: self._sweep(p, AT_ONCE))
        f.loop(even, frame.k, 1, lambda p, _: self._sweep(p, 1))
        self.sums.finish(rows, panels)

    def _clear(self, i: Value) -> None:
        v = Vectors(self.frame.module, self.f, self.frame.tile.lanes)
        dtype, (start, count) = self.frame.tile.dtype, self.columns

        def vector(column: Value, _: list[Value]) -> None:
            place = self.sums.place(i, self.f.add(start, column))
            v.store(v.const(0, dtype), place, dtype)

        self.f.loop(0, count, v.lanes, vector)

    def _sweep(self, p: Value, height: int) -> None:
        frame, f = self.frame, self.f
        ahead = 2 * AT_ONCE if self._is_far() else 0
        name = emit_sweep(frame.module, frame.tile, height, ahead)
        start, count = self.columns
        b = frame.address(frame.address(frame.b, start), f.mul(p, frame.pitch_b))

        def row(i: Value, _: list[Value]) -> None:
            s = frame.address(frame.a, f.add(f.mul(i, frame.pitch_a), p))
            sums = self.sums.place(i, start)
            f.do(
                f"call void @{name}(ptr {s}, ptr {b}, i64 {frame.pitch_b}, i64 {count}, ptr {sums})"
            )

        f.loop(self.rows[0], self.rows[1], 1, row)

    def _is_far(self) -> bool:
        kernel = self.frame.kernel
        size = dim_at(kernel.k, 1) * self.frame.scratch.columns * ITEMSIZE[kernel.dtype]
        return size >= FAR


def emit_sweep(module: Module, tile: Tile, rows: int, ahead: int) -> str:
    """Emit the function that adds `rows` rows of b, each times its scalar of s, to sums.

    Return its name.  The sums of `%columns` columns take the rows in order; `%out` has space for
    full vectors.  If `ahead` is not 0, rows that far ahead are prefetched meanwhile.
    """

    def emit(f: Function) -> None:
        v, element, dtype = Vectors(module, f, tile.lanes), element_type(tile.dtype), tile.dtype
        starts = [f.address("%v", f.mul("%pitch", i), element) for i in range(rows)]
        later = [f.address("%v", f.mul("%pitch", i + ahead), element) for i in range(rows)]
        scalars = [v.load_splat(f.address("%s", i, element), dtype) for i in range(rows)]

        def vector(column: Value, mask: Value | None) -> None:
            place = f.address("%out", column, element)
            total = v.load(place, dtype)
            for start in later if ahead else ():
                v.prefetch(f.address(start, column, element), write=False)
            for start, scalar in zip(starts, scalars, strict=True):
                x = v.load(f.address(start, column, element), dtype, mask)
                total = v.fma(scalar, x, total, dtype)
            v.store(total, place, dtype)

        full = f.value(f"and i64 %columns, {-tile.lanes}")
        f.loop(0, full, tile.lanes, lambda column, _: vector(column, None))
        rest = f.sub("%columns", full)
        more = f.value(f"icmp sgt i64 {rest}, 0")
        f.when(more, lambda: vector(full, v.mask_below(rest)))

    arguments = [("ptr", "%s"), ("ptr", "%v"), ("i64", "%pitch"), ("i64", "%columns")]
    key = ("sweep", tile.dtype, tile.lanes, rows, ahead)
    return module.function("sweep", [*arguments, ("ptr", "%out")], emit, key)


AHEAD = 128
"""The prefetch distance in columns: the processor does not see rows far apart as a stream."""

_ARGUMENTS = (
    ("ptr", "%s"),
    ("i64", "%apart"),
    ("i64", "%count"),
    ("ptr", "%v"),
    ("i64", "%pitch"),
    ("i64", "%columns"),
    ("ptr", "%out"),
    ("i64", "%row"),
    ("i64", "%k"),
)


class Squares:
    """The product of few rows, computed one vector of columns at a time."""

    def __init__(self, frame: Frame) -> None:
        self.frame, self.f = frame, frame.f

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product: all rows meet a square of b before the next one is read."""
        frame, f = self.frame, self.f
        assert isinstance(frame.kernel.k, int), "the columns of a weight"
        name = emit_squares(frame.module, frame.tile, frame.kernel.k)
        sums, width = Sums(frame, rows[0]), frame.tile.width
        s = frame.address(frame.a, f.mul(rows[0], frame.pitch_a))

        def vector(column: Value, _: list[Value]) -> None:
            v = frame.address(frame.b, f.mul(column, frame.pitch_b))
            f.do(
                f"call void @{name}(ptr {s}, i64 {frame.pitch_a}, i64 {f.sub(rows[1], rows[0])}, "
                f"ptr {v}, i64 {frame.pitch_b}, i64 {f.sub(frame.scratch.columns, column)}, "
                f"ptr {sums.place(rows[0], column)}, i64 {frame.scratch.row}, i64 {frame.k})"
            )

        end = f.smaller(f.mul(panels[1], width), frame.scratch.columns)
        some = f.value(f"icmp slt i64 {rows[0]}, {rows[1]}")
        end = f.value(f"select i1 {some}, i64 {end}, i64 0")
        f.loop(f.mul(panels[0], width), end, frame.tile.lanes, vector)
        sums.finish(rows, panels)


def emit_squares(module: Module, tile: Tile, k: int) -> str:
    """Emit the function that multiplies rows of scalars by a vector of columns; return its name.

    There are `%count` rows of k scalars, `%apart` from each other; the columns are stored as
    `%columns` rows, `%pitch` apart.  `%out` takes FEW rows of a vector, `%row` apart.  Each element
    has one accumulator, from zero, in the order of k; missing rows and columns repeat the last.
    """

    def emit(f: Function) -> None:
        _Column(Vectors(module, f, tile.lanes), tile.dtype).emit(k)

    key = ("squares", tile.dtype, tile.lanes, min(k // tile.lanes, 1), k % tile.lanes)
    return module.function("squares", _ARGUMENTS, emit, key)


class _Column:
    """The code of one vector of columns."""

    def __init__(self, v: Vectors, dtype: str) -> None:
        self.v, self.f = v, v.function
        self.dtype, self.element = dtype, element_type(dtype)
        self.scalars = self._starts("%s", "%apart", "%count", FEW)
        self.columns = self._starts("%v", "%pitch", "%columns", v.lanes)

    def _starts(self, base: Value, apart: Value, count: Value, most: int) -> list[Value]:
        last = self.f.sub(count, 1)
        offsets = [self.f.mul(self.f.smaller(i, last), apart) for i in range(most)]
        return [self._at(base, offset) for offset in offsets]

    def emit(self, k: int) -> None:
        """Emit the loop over k by squares, a last one that is not full, and the stores."""
        lanes, type = self.v.lanes, self.v.type(self.dtype)
        full, rest = self.f.even("%k", lanes), k % lanes
        sums = ["zeroinitializer"] * FEW
        if k >= lanes:
            state = [(type, x) for x in sums]
            sums = self.f.loop(0, full, lanes, lambda p, x: self._square(p, x, lanes), state)
        if rest:
            sums = self._square(full, sums, rest)
        for i, x in enumerate(sums):
            self.v.store(x, self._at("%out", self.f.mul("%row", i)), self.dtype)

    def _square(self, p: Value, sums: list[Value], depth: int) -> list[Value]:
        """Emit the sums with the next `depth` of k added."""
        mask = self.v.mask_below(depth) if depth < self.v.lanes else None
        places = [self._at(start, p) for start in self.columns]
        rows = [self.v.load(place, self.dtype, mask) for place in places]
        for place in places if mask is None else ():
            self.v.prefetch(self._at(place, AHEAD), write=False)
        scalars = [self._at(s, p) for s in self.scalars]
        for number, x in enumerate(self.v.transpose(rows, self.dtype)[:depth]):
            lefts = [self.v.load_splat(self._at(s, number), self.dtype) for s in scalars]
            sums = [
                self.v.fma(left, x, total, self.dtype)
                for left, total in zip(lefts, sums, strict=True)
            ]
        return sums

    def _at(self, base: Value, index: Value | int) -> Value:
        return self.f.address(base, index, self.element)
