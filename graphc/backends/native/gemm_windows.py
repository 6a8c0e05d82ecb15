"""A matrix product whose left factor is a window over images: no such matrix is made.

The rows of a register tile are neighbouring places, so that their pixels are at fixed distances;
the columns of the factor are runs of neighbours in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from graphc.backends.native.epilogue import EPILOGUE_ARGUMENTS, Epilogue
from graphc.backends.native.gemm_frame import Frame
from graphc.backends.native.images import Images, place_of
from graphc.backends.native.ir import Function, Value
from graphc.backends.native.packing import emit_copy, emit_transpose
from graphc.backends.native.registers import element_type
from graphc.backends.native.tile_ir import Steps
from graphc.backends.native.vectors import Vectors
from graphc.kernels.kernel import CHUNK
from graphc.kernels.window import Window

UNROLL = 2
STRAIGHT = 160
"""Additions of a tile up to which a run takes no loop."""

_ARGUMENTS = (
    ("ptr", "%s"),
    ("ptr", "%v"),
    ("i64", "%top"),
    ("i64", "%low"),
    ("i64", "%high"),
    *EPILOGUE_ARGUMENTS[3:],
)
"""After the buffers: the image, the panel of b, the row of the image's first place; the places
from and to; where the panel lies, and the sizes of all."""


class Windows:
    """Panels of columns; in each the images; in each the tiles of places."""

    def __init__(self, frame: Frame, window: Window) -> None:
        self.frame, self.f, self.window = frame, frame.f, window
        self.panel = frame.address(frame.workspace, frame.scratch.image)
        self.images = Images(frame, window, frame.workspace)

    def emit(self, rows: tuple[Value, Value], panels: tuple[Value, Value]) -> None:
        """The rows and panels from and to."""

        def panel(vectors: int, rest: int) -> Callable[[Value], None]:
            return lambda column: self._panel(rows, vectors, rest, column)

        def mine() -> None:
            self.images.clear()
            self.frame.each_panel(*panels, panel)

        self.f.when(self.f.value(f"icmp slt i64 {rows[0]}, {rows[1]}"), mine)

    def _panel(self, rows: tuple[Value, Value], vectors: int, rest: int, column: Value) -> None:
        f, frame, count = self.f, self.frame, self.window.count
        self._pack(vectors, rest, column)
        name = _emit_places(frame, self.window, vectors, rest)

        def image(number: Value, _: list[Value]) -> None:
            top = f.mul(number, count)
            low = f.larger(f.sub(rows[0], top), 0)
            high = f.smaller(f.sub(rows[1], top), count)
            f.do(
                f"call void @{name}({frame.passed}ptr {self.images.at(number)}, "
                f"ptr {self.panel}, i64 {top}, i64 {low}, i64 {high}, i64 {column}, "
                f"i64 {rest or frame.tile.width}, i64 {frame.m}, i64 %n)"
            )

        first = f.quotient(rows[0], count)
        last = f.quotient(f.add(rows[1], count - 1), count)
        f.loop(first, last, 1, image)

    def _pack(self, vectors: int, rest: int, column: Value) -> None:
        """All rows of a panel of b."""
        frame, tile, depth = self.frame, self.frame.tile, self.window.depth
        if frame.kernel.trans_b:
            self._turn(vectors, rest, column)
            return
        name = emit_copy(frame.module, tile, vectors, rest % tile.lanes != 0)
        self.f.do(
            f"call void @{name}(ptr {frame.address(frame.b, column)}, i64 {frame.pitch_b}, "
            f"i64 {rest or tile.width}, ptr {self.panel}, i64 {depth})"
        )

    def _turn(self, vectors: int, rest: int, column: Value) -> None:
        """The offsets of a weight in reverse, each transposed.

        What a transposition writes beyond its rows, the next one writes again.
        """
        f, frame, tile = self.f, self.frame, self.frame.tile
        name, channels = emit_transpose(frame.module, tile, vectors), self.window.channels
        offsets = self.window.depth // channels
        size = frame.scratch.columns * channels
        start = frame.address(frame.b, f.add(f.mul(column, channels), (offsets - 1) * size))

        def offset(number: Value, _: list[Value]) -> None:
            source = frame.address(start, f.mul(number, -size))
            target = f.mul(number, channels * vectors * tile.lanes)
            f.do(
                f"call void @{name}(ptr {source}, i64 {channels}, i64 {rest or tile.width}, "
                f"ptr {frame.address(self.panel, target)}, i64 {channels})"
            )

        f.loop(0, offsets, 1, offset)


def _emit_places(frame: Frame, window: Window, vectors: int, rest: int) -> str:
    """The function that computes the places [%low, %high) of an image for a panel."""
    name = frame.module.name("places", object())
    buffers = [("ptr", argument) for argument in frame.memory.arguments.values()]
    f = Function(name, [*buffers, *_ARGUMENTS], attributes="#1")
    _Places(frame, window, f, vectors, rest).emit()
    f.ret()
    frame.module.add(f)
    return name


class _Places:
    """The text of the tiles of an image."""

    def __init__(self, frame: Frame, window: Window, f: Function, vectors: int, rest: int) -> None:
        self.f, self.window, self.vectors, tile = f, window, vectors, frame.tile
        self.v = Vectors(frame.module, f, tile.lanes)
        self.dtype, self.element = tile.dtype, element_type(tile.dtype)
        self.pitch = vectors * tile.lanes
        masked = rest % tile.lanes != 0
        self.epilogue = Epilogue(self.v, frame.kernel, frame.memory, vectors, masked)
        self.most = tile.height(vectors)
        self.across, self.step = window.places[-1], window.steps[-1]
        self.lines = _lines(window, self.most)

    def emit(self) -> None:
        """Whole blocks of places, and one place at a time where a thread's rows begin or end
        within a block."""
        f, block = self.f, self.lines * self.across
        if self.window.count % block == 0 == CHUNK % block:
            self._blocks("%low", "%high")
            return
        after = f.mul(f.quotient(f.add("%low", block - 1), block), block)
        first = f.smaller(after, "%high")
        last = f.larger(f.mul(f.quotient("%high", block), block), first)
        f.loop("%low", first, 1, lambda place, _: self._single(place))
        self._blocks(first, last)
        f.loop(last, "%high", 1, lambda place, _: self._single(place))

    def _blocks(self, first: Value, last: Value) -> None:
        f, block = self.f, self.lines * self.across

        def one(start: Value, _: list[Value]) -> None:
            s = self._at("%s", self._line(f.quotient(start, self.across)))
            row = f.add("%top", start)
            if self.lines > 1:
                self._tile(s, row, self.lines, self.across)
                return
            column = 0
            for count, width in _cuts(self.across, self.most):
                self._tiles(s, row, column, count, width)
                column += count * width

        f.loop(first, last, block, one)

    def _tiles(self, s: Value, row: Value, column: int, count: int, width: int) -> None:
        """So many tiles beside each other."""
        f = self.f

        def tile(i: Value, _: list[Value]) -> None:
            first = f.add(i, column)
            self._tile(self._at(s, f.mul(first, self.step)), f.add(row, first), 1, width)

        if count == 1:
            tile("0", [])
        else:
            f.loop(0, count * width, width, tile)

    def _single(self, place: Value) -> None:
        f = self.f
        line, column = f.quotient(place, self.across), f.remainder(place, self.across)
        offset = f.add(self._line(line), f.mul(column, self.step))
        self._tile(self._at("%s", offset), f.add("%top", place), 1, 1)

    def _line(self, number: Value) -> Value:
        """Where a line of places begins."""
        return place_of(self.f, number, self.window.places[:-1], self.window.steps[:-1])

    def _tile(self, s: Value, row: Value, lines: int, width: int) -> None:
        """The tile of some lines of so many places."""
        above = self.window.steps[-2] if lines > 1 else 0
        offsets = [i * above + j * self.step for i in range(lines) for j in range(width)]
        steps = Steps(self.v, self.dtype, self.vectors, offsets, "1")
        count = len(offsets) * self.vectors
        unroll = self.window.run if count * self.window.run <= STRAIGHT else UNROLL
        start = ["zeroinitializer"] * count
        sums = self._runs(steps, unroll if lines * width > 1 else 1, 0, s, ["%v", *start])[1:]
        self.epilogue.rows(row, len(offsets), lambda r, j: sums[r * self.vectors + j])

    def _runs(
        self, steps: Steps, unroll: int, axis: int, s: Value, carried: list[Value]
    ) -> list[Value]:
        """The panel of b behind the runs of all offsets from an axis on, and the sums."""
        f, run = self.f, self.window.run
        if axis == len(self.window.reach):
            v, *sums = carried
            sums = steps.run((s, v), str(self.pitch), str(run), unroll, start=sums)
            return [self._at(v, run * self.pitch), *sums]
        count, step = self.window.reach[axis]
        if count == 1:
            return self._runs(steps, unroll, axis + 1, s, carried)

        def offset(i: Value, carried: list[Value]) -> list[Value]:
            pixel = self._at(s, f.mul(i, step))
            return self._runs(steps, unroll, axis + 1, pixel, carried)

        types = ["ptr", *[self.v.type(self.dtype)] * (len(carried) - 1)]
        return f.loop(0, count, 1, offset, list(zip(types, carried, strict=True)))

    def _at(self, base: Value, index: Value | int) -> Value:
        return self.f.address(base, index, self.element)


def _lines(window: Window, most: int) -> int:
    """How many lines of places make a tile: what divides all of them and fits."""
    if len(window.places) == 1:
        return 1
    lines, across = window.places[-2:]
    return max(n for n in range(1, lines + 1) if lines % n == 0 and (n == 1 or n * across <= most))


def _cuts(size: int, most: int) -> Iterator[tuple[int, int]]:
    """A size in nearly equal parts of at most so many: how many of which width."""
    parts = -(-size // most)
    width, wider = divmod(size, parts)
    for count, found in ((wider, width + 1), (parts - wider, width)):
        if count:
            yield count, found
