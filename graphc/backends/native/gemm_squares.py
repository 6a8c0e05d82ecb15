"""The product of few rows with a matrix stored (n, k): read once, transposed in squares."""

from __future__ import annotations

from graphc.backends.native.gemm_frame import Frame
from graphc.backends.native.gemm_rows import Sums
from graphc.backends.native.ir import Function, Module, Value
from graphc.backends.native.registers import element_type
from graphc.backends.native.tile import FEW, Tile
from graphc.backends.native.vectors import Vectors

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

    def emit(self, rows: tuple[Value, Value], panels: tuple[Value, Value]) -> None:
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
    key = ("squares", tile.dtype, tile.lanes, min(k // tile.lanes, 1), k % tile.lanes)
    name = module.known(key)
    if name is not None:
        return name
    name = module.name("squares", key)
    f = Function(name, _ARGUMENTS, attributes="#1")
    _Column(Vectors(module, f, tile.lanes), tile.dtype).emit(k)
    f.ret()
    module.add(f)
    return name


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
