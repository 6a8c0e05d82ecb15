"""Strips of a matrix product: full tiles of one panel, one below the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from graphc.backends.native.epilogue import EPILOGUE_ARGUMENTS, Epilogue, lines
from graphc.backends.native.gemm_frame import Frame
from graphc.backends.native.ir import Function, Value
from graphc.backends.native.tile import LINE
from graphc.backends.native.tile_ir import Steps, Strides
from graphc.backends.native.vectors import Vectors
from graphc.ir.tensor_type import ITEMSIZE, dim_at
from graphc.kernels.kernel import CHUNK, Gemm

NEAR = 1 << 18
"""The most bytes of the operand that does not grow with the batch for all to count as near."""
UNROLL = 2

_ARGUMENTS = (
    ("ptr", "%s"),
    ("ptr", "%v"),
    ("i64", "%pitch"),
    ("i64", "%k"),
    ("i64", "%first"),
    ("i64", "%last"),
    ("ptr", "%products"),
    *EPILOGUE_ARGUMENTS[3:],
)
"""The arguments after the buffers: scalars of the first row, the panel of b, the elements between
its rows, their number; the first and end row; space for a tile; the panel's first column and its
columns, and the sizes of all."""


def emit_strip(frame: Frame, vectors: int, rest: int, strides: Strides, packed: bool) -> str:
    """Emit the function that computes full tiles of a panel of `vectors`; return its name.

    The panel has `rest` columns, or is full if that is 0.  `strides` are the elements from row to
    row of scalars, and from one of k to the next.  `packed` scalars lie in chunks of rows.
    """
    name = frame.module.name("strip", object())
    buffers = [("ptr", argument) for argument in frame.memory.arguments.values()]
    f = Function(name, [*buffers, *_ARGUMENTS], attributes="#1")
    _Strip(frame, f, vectors, rest, strides, packed).emit()
    f.ret()
    frame.module.add(f)
    return name


def _is_near(kernel: Gemm) -> bool:
    """Return whether all data of the product is likely to stay in the second cache."""
    sizes = [dim_at(dim, 1) for dim in (kernel.m, kernel.n, kernel.k)]
    weights = sizes[1] * (sizes[0] if isinstance(kernel.m, int) else sizes[2])
    return weights * ITEMSIZE[kernel.dtype] <= NEAR


class _Strip:
    """The code of one strip."""

    def __init__(
        self, frame: Frame, f: Function, vectors: int, rest: int, strides: Strides, packed: bool
    ) -> None:
        self.frame, self.f, tile = frame, f, frame.tile
        self.body, self.rest = frame.kernel.body, rest
        self.v = Vectors(frame.module, f, tile.lanes)
        self.height, self.vectors = tile.height(vectors), vectors
        offsets = [strides[0] * i for i in range(self.height)]
        self.steps = Steps(self.v, tile.dtype, vectors, offsets, str(strides[1]))
        self.row, self.packed = strides[0], packed
        self.per_line = LINE // ITEMSIZE[tile.dtype]
        self.k: Value = str(frame.kernel.k) if isinstance(frame.kernel.k, int) else "%k"

    def emit(self) -> None:
        """Emit the loop over the tiles."""
        tile = self._near() if _is_near(self.frame.kernel) else self._far()
        self.f.loop("%first", "%last", self.height, lambda i, _: tile(i))

    def _near(self) -> Callable[[Value], None]:
        """Return a function that emits a tile whose body uses the sums in registers.

        The matrices that the body reads are prefetched before the sums.
        """
        frame, masked = self.frame, self.rest % self.v.lanes != 0
        epilogue = Epilogue(self.v, frame.kernel, frame.memory, self.vectors, masked)
        read = {s.buffer for s in self.body.steps if s.op == "load" and s.span == "each"}

        def tile(i: Value) -> None:
            starts = lines(self.f, self.body, frame.memory, i)
            for buffer in (b for b in frame.matrices if b in read):
                for r in range(self.height):
                    row = self._at(starts[buffer], r * frame.memory.pitches[buffer])
                    self._prefetch(row, buffer)
            sums = self._sums(i, lambda p: None)
            epilogue.rows(i, self.height, lambda r, j: sums[r * self.vectors + j])

        return tile

    def _far(self) -> Callable[[Value], None]:
        """Return a function that emits a tile whose body is a loop over rows.

        The processor predicts that loop.  Meanwhile data for the next tile is prefetched: spread
        over k, prefetches delay nothing.
        """
        f, frame, height = self.f, self.frame, self.height
        of_panel = self._halvings(f.value(f"udiv i64 {f.sub('%last', '%first')}, {height}"))
        of_rows = self._halvings(f.value(f"udiv i64 {self.k}, {height}"))
        epilogue = frame.epilogue(self.vectors, self.rest)

        def tile(i: Value) -> None:
            following = lines(f, self.body, frame.memory, f.add(i, height))
            asks = [self._of_panel(i, of_panel)]
            asks += [partial(self._of_matrix, b, following[b], of_rows) for b in frame.matrices]
            for number, x in enumerate(self._sums(i, lambda p: [ask(p) for ask in asks])):
                self.v.store(x, self._at("%products", number * self.v.lanes), frame.tile.dtype)
            f.do(
                f"call void @{epilogue}({frame.passed}ptr %products, i64 {i}, i64 {height}, "
                f"i64 %column, i64 %columns, i64 %m, i64 %n)"
            )

        return tile

    def _sums(self, i: Value, before: Callable[[Value], object]) -> list[Value]:
        """Emit the products of the tile that begins at row i."""
        f = self.f
        inside = f.sub(i, "%first")
        start = f.mul(inside, self.row)
        if self.packed:
            lane = f.value(f"and i64 {inside}, {CHUNK - 1}")
            start = f.add(f.mul(f.sub(inside, lane), self.k), lane)
        return self.steps.run((self._at("%s", start), "%v"), "%pitch", self.k, UNROLL, before)

    # ------------------------------------------------------------------ what is needed next

    def _of_panel(self, i: Value, shift: Value) -> Callable[[Value], None]:
        """Return a function that emits prefetches of a tile's share of the next panel of b.

        It goes to the second cache, since packing uses it only once.  The share is some of the k
        rows or, if b is stored (n, k), one of the columns.
        """
        f, frame, width = self.f, self.frame, self.frame.tile.width
        number = f.value(f"udiv i64 {f.sub(i, '%first')}, {self.height}")
        following, apart = f.add("%column", width), frame.pitch_b
        if frame.kernel.trans_b:
            place = self._at(frame.b, f.mul(f.add(following, number), frame.pitch_b))
            shift, apart = str(width.bit_length() - 1), width
        else:
            share = f.mul(f.value(f"lshr i64 {self.k}, {shift}"), frame.pitch_b)
            place = self._at(self._at(frame.b, following), f.mul(number, share))

        def ask(p: Value) -> None:
            row = self._at(place, f.mul(f.value(f"lshr i64 {p}, {shift}"), apart))
            for j in range(0, width, self.per_line):
                self.v.prefetch(self._at(row, j), write=False)

        return ask

    def _of_matrix(self, buffer: str, start: Value, shift: Value, p: Value) -> None:
        """Prefetch a row of the next tile in a matrix that the body reads or writes."""
        number = self.f.value(f"lshr i64 {p}, {shift}")
        pitch = self.frame.memory.pitches[buffer]
        self._prefetch(self._at(start, self.f.mul(number, pitch)), buffer)

    def _prefetch(self, row: Value, buffer: str) -> None:
        """Prefetch a row of the panel; if rows begin amid a cache line, it ends in one more."""
        width = self.steps.vectors * self.v.lanes
        columns = [*range(0, width, self.per_line)]
        if self.frame.memory.pitches[buffer] % self.per_line:
            columns.append(width - 1)
        for j in columns:
            self.v.prefetch(self._at(row, j), write=True)

    def _halvings(self, number: Value) -> Value:
        """Emit the logarithm of a number to base 2, rounded down; of 0 it is 0."""
        self.frame.module.declare("declare i64 @llvm.ctlz.i64(i64, i1)")
        zeros = self.f.value(f"call i64 @llvm.ctlz.i64(i64 {self.f.larger(number, 1)}, i1 true)")
        return self.f.sub(63, zeros)

    def _at(self, base: Value, index: Value | int) -> Value:
        return self.f.address(base, index, self.steps.element)
