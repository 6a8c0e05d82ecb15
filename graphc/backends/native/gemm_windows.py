"""Matrix products whose left factor is a window over images: that matrix is never stored.

The rows of a register tile are neighbouring places, so that their pixels are at fixed distances;
the columns of the factor are runs of neighbours in memory.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.backends.native.epilogue import EPILOGUE_ARGUMENTS
from graphc.backends.native.gemm_frame import Frame
from graphc.backends.native.images import Images
from graphc.backends.native.ir import Function, Value
from graphc.backends.native.packing import emit_copy, emit_transpose
from graphc.backends.native.spread_places import SpreadPlaces
from graphc.backends.native.window_places import Panel, Places
from graphc.kernels.window import Window

_ARGUMENTS = (
    ("ptr", "%s"),
    ("ptr", "%v"),
    ("i64", "%top"),
    ("i64", "%low"),
    ("i64", "%high"),
    *EPILOGUE_ARGUMENTS[3:],
)
"""The arguments after the buffers: the image, the panel of b, the row of the image's first place;
the first and end place; the panel's first column and its columns, and the sizes of all."""


class Windows:
    """The loops over panels of columns, in each over images, in each over tiles of places."""

    def __init__(self, frame: Frame, window: Window) -> None:
        self.frame, self.f, self.window = frame, frame.f, window
        self.panel = frame.address(frame.workspace, frame.scratch.image)
        self.images = Images(frame, window.dense, frame.workspace)

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
        f, count = self.f, self.window.count
        self._pack(frame, vectors, rest, column)
        name = _emit_places(frame, self.window, vectors, rest)

        def image(number: Value, _: list[Value]) -> None:
            top = f.mul(number, count)
            low = f.larger(f.sub(rows[0], top), 0)
            high = f.smaller(f.sub(rows[1], top), count)
            f.do(
                f"call void @{name}({frame.passed}ptr {self.images.at(number, column)}, "
                f"ptr {self.panel}, i64 {top}, i64 {low}, i64 {high}, i64 {column}, "
                f"i64 {rest or frame.tile.width}, i64 {frame.m}, i64 %n)"
            )

        first = f.quotient(rows[0], count)
        last = f.quotient(f.add(rows[1], count - 1), count)
        f.loop(first, last, 1, image)

    def _pack(self, frame: Frame, vectors: int, rest: int, column: Value) -> None:
        """Emit the packing of all rows of a panel of b."""
        tile, depth = frame.tile, self.window.depth
        if frame.kernel.trans_b:
            self._turn(frame, vectors, rest, column)
            return
        name = emit_copy(frame.module, tile, vectors, rest % tile.lanes != 0)
        self.f.do(
            f"call void @{name}(ptr {frame.address(frame.b, column)}, i64 {frame.pitch_b}, "
            f"i64 {rest or tile.width}, ptr {self.panel}, i64 {depth})"
        )

    def _turn(self, frame: Frame, vectors: int, rest: int, column: Value) -> None:
        """Emit the packing of a weight's offsets in reverse, each transposed.

        An offset is stored (columns, channels); a group has all columns and some channels.  What a
        transposition writes beyond its rows, the next one overwrites.
        """
        f, tile = self.f, frame.tile
        name, channels = emit_transpose(frame.module, tile, vectors), self.window.channels
        offsets = self.window.depth // channels
        pixel, units = self.window.pixel, frame.scratch.part
        size = units * pixel
        first = f.mul(f.sub(column, f.mul(f.quotient(column, units), units)), pixel)
        first = f.add(first, self.images.first_channel(column))
        start = frame.address(frame.b, f.add(first, (offsets - 1) * size))

        def offset(number: Value, _: list[Value]) -> None:
            source = frame.address(start, f.mul(number, -size))
            target = f.mul(number, channels * vectors * tile.lanes)
            f.do(
                f"call void @{name}(ptr {source}, i64 {pixel}, i64 {rest or tile.width}, "
                f"ptr {frame.address(self.panel, target)}, i64 {channels})"
            )

        f.loop(0, offsets, 1, offset)


def _emit_places(frame: Frame, window: Window, vectors: int, rest: int) -> str:
    """Emit the function that computes places [%low, %high) of an image for a panel."""
    name = frame.module.name("places", object())
    buffers = [("ptr", argument) for argument in frame.memory.arguments.values()]
    f = Function(name, [*buffers, *_ARGUMENTS], attributes="#1")
    places = SpreadPlaces if window.is_spread else Places
    places(Panel(frame, f, vectors, rest), window).emit()
    f.ret()
    frame.module.add(f)
    return name
