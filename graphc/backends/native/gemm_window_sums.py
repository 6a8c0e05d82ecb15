"""The product of a window's matrix, transposed, with another: sums over all places of all images.

The sums stay in a thread's memory from image to image, and are still added in the order of
places.  A tile of sums has fixed offsets in an image, and loops over its places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from graphc.backends.native.gemm_frame import Frame
from graphc.backends.native.images import Images
from graphc.backends.native.ir import Function, Value
from graphc.backends.native.registers import element_type
from graphc.backends.native.tile_ir import Steps
from graphc.backends.native.vectors import Vectors
from graphc.kernels.kernel import CHUNK
from graphc.kernels.window import Window

UNROLL = 2

_ARGUMENTS = (("ptr", "%s"), ("ptr", "%v"), ("ptr", "%sums"), ("i64", "%columns"))


class WindowSums:
    """The loops over panels of columns, in each over images, in each over tiles of rows."""

    def __init__(self, frame: Frame, window: Window) -> None:
        self.frame, self.f, self.window = frame, frame.f, window
        self.sums = frame.address(frame.workspace, frame.scratch.image)
        self.images = Images(frame, window, frame.workspace)

    def emit(self, rows: tuple[Value, Value], panels: tuple[Value, Value]) -> None:
        """Emit the product for a range of rows and a range of panels."""

        def panel(frame: Frame, vectors: int, rest: int) -> Callable[[Value], None]:
            return lambda column: self._panel(frame, rows, vectors, rest, column)

        def mine() -> None:
            self.images.clear()
            self.frame.each_panel(*panels, panel)

        self.f.when(self.f.value(f"icmp slt i64 {rows[0]}, {rows[1]}"), mine)

    def _panel(
        self, frame: Frame, rows: tuple[Value, Value], vectors: int, rest: int, column: Value
    ) -> None:
        f = self.f
        width = vectors * frame.tile.lanes
        self._clear(rows, width)

        def image(number: Value, _: list[Value]) -> None:
            s = self.images.at(number, column)
            first = f.mul(number, self.window.count * frame.pitch_b)
            v = frame.address(frame.b, f.add(first, column))
            for start in range(0, self.window.depth, CHUNK):
                mine = self._has(rows, start)
                f.when(mine, partial(self._chunk, frame, s, v, vectors, rest, start))

        f.loop(0, f.quotient(frame.k, self.window.count), 1, image)
        sums = frame.address(self.sums, f.mul(rows[0], width))
        frame.finish(vectors, rest, sums, rows[0], f.sub(rows[1], rows[0]), column)

    def _has(self, rows: tuple[Value, Value], start: int) -> Value:
        """Emit the condition that a chunk of rows belongs to this thread."""
        f = self.f
        after = f.value(f"icmp sge i64 {start}, {rows[0]}")
        before = f.value(f"icmp slt i64 {start}, {rows[1]}")
        return f.value(f"and i1 {after}, {before}")

    def _clear(self, rows: tuple[Value, Value], width: int) -> None:
        f, frame = self.f, self.frame
        v, dtype = Vectors(frame.module, f, frame.tile.lanes), frame.tile.dtype

        def vector(i: Value, _: list[Value]) -> None:
            v.store(v.const(0, dtype), frame.address(self.sums, i), dtype)

        f.loop(f.mul(rows[0], width), f.mul(rows[1], width), v.lanes, vector)

    def _chunk(self, frame: Frame, s: Value, v: Value, vectors: int, rest: int, start: int) -> None:
        """Emit the tiles of a chunk of rows."""
        f, columns = self.f, self.window.columns
        end = min(start + CHUNK, len(columns))
        width, height = vectors * frame.tile.lanes, frame.tile.height(vectors)
        for first in range(start, end, height):
            mine = columns[first : min(first + height, end)]
            offsets = tuple(column - mine[0] for column in mine)
            name = _emit_sums(frame, self.window, vectors, rest, offsets)
            f.do(
                f"call void @{name}(ptr {frame.address(s, mine[0])}, ptr {v}, "
                f"ptr {frame.address(self.sums, first * width)}, "
                f"i64 {rest or frame.tile.width})"
            )


def _emit_sums(
    frame: Frame, window: Window, vectors: int, rest: int, offsets: tuple[int, ...]
) -> str:
    """Emit the function that adds the products of an image's pixels at some offsets to sums."""
    module, tile = frame.module, frame.tile
    masked = rest % tile.lanes != 0
    places = window.places, window.steps, frame.pitch_b
    key = ("sums", tile.dtype, tile.lanes, vectors, masked, offsets, places)
    name = module.known(key)
    if name is None:
        name = module.name("sums", key)
        f = Function(name, _ARGUMENTS, attributes="#1")
        _Sums(Vectors(module, f, tile.lanes), tile.dtype, window, frame.pitch_b).emit(
            vectors, masked, offsets
        )
        f.ret()
        module.add(f)
    return name


class _Sums:
    """The code of one tile: a loop for each dimension of places."""

    def __init__(self, v: Vectors, dtype: str, window: Window, pitch: int) -> None:
        self.v, self.f, self.dtype, self.window, self.pitch = v, v.function, dtype, window, pitch
        self.element = element_type(dtype)

    def emit(self, vectors: int, masked: bool, offsets: Sequence[int]) -> None:
        """Emit the loads of the sums, the loops that add all places, and the stores."""
        v, count = self.v, len(offsets) * vectors
        rest = self.f.sub("%columns", (vectors - 1) * v.lanes)
        last = v.mask_below(rest) if masked else None
        step = str(self.window.steps[-1])
        self.steps = Steps(v, self.dtype, vectors, offsets, step, last)
        places = [self._at("%sums", i * v.lanes) for i in range(count)]
        start = [v.load(place, self.dtype) for place in places]
        for place, total in zip(places, self._axis(0, "%s", "%v", start), strict=True):
            v.store(total, place, self.dtype)

    def _axis(self, axis: int, s: Value, v: Value, sums: list[Value]) -> list[Value]:
        """Emit the sums with the places of one dimension, and of all after it, added."""
        f, sizes, type = self.f, self.window.places, self.v.type(self.dtype)
        if axis == len(sizes) - 1:
            pitch = str(self.pitch)
            return self.steps.run((s, v), pitch, str(sizes[-1]), UNROLL, start=sums)
        inner = self.pitch
        for size in sizes[axis + 1 :]:
            inner *= size

        def line(i: Value, carried: list[Value]) -> list[Value]:
            pixel = self._at(s, f.mul(i, self.window.steps[axis]))
            return self._axis(axis + 1, pixel, self._at(v, f.mul(i, inner)), carried)

        return f.loop(0, sizes[axis], 1, line, [(type, x) for x in sums])

    def _at(self, base: Value, index: Value | int) -> Value:
        return self.f.address(base, index, self.element)
