"""Weight gradients of convolutions: sums over all places of all images.

The rows are the offsets of the filter and their channels; a tile has neighbouring rows.  If each
offset has many channels, a tile has those of one offset: it visits only places whose pixels exist,
and no image is copied with zeros around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from typing import NamedTuple

from graphc.backends.native.gemm_frame import Frame, Panel
from graphc.backends.native.gemm_tile import UNROLL, Steps, WindowScratch
from graphc.backends.native.gemm_windows import WindowProduct
from graphc.backends.native.ir import Function, Range, Value
from graphc.backends.native.loop_structure import clear
from graphc.backends.native.vectors import Vectors, element_type
from graphc.kernels.kernel import CHUNK


class _Tile(NamedTuple):
    """Some rows, and the places that they are summed over."""

    offsets: tuple[int, ...]
    """The elements from the first row's pixel to that of each row."""
    pixel: int
    """The index, in an image, of the first row's pixel at the first place."""
    place: int
    """The number of the first place."""
    counts: tuple[int, ...]
    """The places in each dimension."""


class WindowSums(WindowProduct):
    """A convolution's weight gradient: loops over panels, images, and tiles of rows."""

    def __init__(self, frame: Frame, scratch: WindowScratch) -> None:
        super().__init__(frame, scratch, scratch.kernel.window)

    def panel(self, rows: Range, panel: Panel) -> None:
        """Emit the sums of a panel over all images, and the body on them."""
        f, frame = self.f, self.frame
        width = panel.vectors * panel.frame.tile.lanes
        sums = frame.address(self.packed, f.mul(rows[0], width))
        size = f.mul(f.sub(rows[1], rows[0]), width)
        clear(Vectors(f, panel.frame.tile.lanes), sums, size, frame.tile.dtype)

        def image(number: Value, _: list[Value]) -> None:
            s = self.image(number, panel.column)
            first = f.mul(number, self.window.count * frame.pitch_b)
            v = frame.address(frame.b, f.add(first, panel.column))
            for start in range(0, self.window.depth, CHUNK):
                f.when(self._has(rows, start), partial(self._chunk, panel, s, v, start))

        f.loop(0, f.quotient(frame.k, self.window.count), 1, image)
        panel.run_body(sums, rows[0], f.sub(rows[1], rows[0]))

    def _has(self, rows: Range, start: int) -> Value:
        """Emit the condition that a chunk of rows belongs to this thread."""
        f = self.f
        after = f.value(f"icmp sge i64 {start}, {rows[0]}")
        return f.value(f"and i1 {after}, {f.less(start, rows[1])}")

    def _chunk(self, panel: Panel, s: Value, v: Value, start: int) -> None:
        """Emit the tiles of a chunk of rows."""
        frame = panel.frame
        width, height = panel.vectors * frame.tile.lanes, frame.tile.height(panel.vectors)
        for first, end in self._cuts(start, height):
            tile = self._tile(first, end)
            if prod(tile.counts):
                name = self._emit_tile(panel, tile.offsets)
                sums = frame.address(self.packed, first * width)
                places = frame.address(v, tile.place * frame.pitch_b)
                pixels = frame.address(s, tile.pixel)
                self.f.call(name, pixels, places, sums, panel.columns, *tile.counts)

    def _cuts(self, start: int, height: int) -> Iterator[tuple[int, int]]:
        """Yield the first and end row of each tile of a chunk: of one offset, if read in place."""
        channels = self.window.channels if self.scratch.in_place else self.window.depth
        end = min(start + CHUNK, self.window.depth)
        while start < end:
            first, start = start, min(start + height, end, (start // channels + 1) * channels)
            yield first, start

    def _tile(self, first: int, end: int) -> _Tile:
        """Return the tile of some rows."""
        window = self.window
        if not self.scratch.in_place:
            offsets = tuple(column - window.columns[first] for column in window.columns[first:end])
            return _Tile(offsets, window.columns[first], 0, window.places)
        offset, channel = divmod(first, window.channels)
        pixel = place = 0
        counts = []
        for axis, at in enumerate(_index(offset, window.kernel)):
            met = window.places_met(axis, at)
            position = met.start * window.stride[axis] + at * window.dilation[axis]
            pixel = pixel * window.space[axis] + position - window.before[axis]
            place = place * window.places[axis] + met.start
            counts.append(len(met))
        start = pixel * window.pixel + channel
        return _Tile(tuple(range(end - first)), start, place, tuple(counts))

    def _steps(self) -> tuple[int, ...]:
        """Return the elements from the pixel of a place to that of the next, by dimension."""
        window = self.window
        if not self.scratch.in_place:
            return window.steps
        return tuple(s * p for s, p in zip(window.stride, window.pixel_pitches, strict=True))

    def _emit_tile(self, panel: Panel, offsets: tuple[int, ...]) -> str:
        """Emit the function that adds the products of an image's pixels to sums."""
        tile, masked, pitch = panel.frame.tile, panel.masked, panel.frame.pitch_b
        steps = self._steps()
        lines = tuple(pitch * prod(self.window.places[i + 1 :]) for i in range(len(steps)))

        def emit(f: Function) -> None:
            v = Vectors(f, tile.lanes)
            _Sums(v, tile.dtype, steps, lines).emit(panel.vectors, masked, offsets)

        key = ("sums", tile.dtype, tile.lanes, panel.vectors, masked, offsets, steps, lines)
        counts = "".join(f", i64 %count{axis}" for axis in range(len(steps)))
        arguments = f"ptr %s, ptr %v, ptr %sums, i64 %columns{counts}"
        return panel.frame.module.function("sums", arguments, emit, key)


def _index(number: int, sizes: Sequence[int]) -> list[int]:
    """Return the index in each dimension of a number in C order."""
    found = []
    for size in reversed(sizes):
        number, at = divmod(number, size)
        found.append(at)
    return found[::-1]


class _Sums:
    """The emitter of one tile: a loop for each dimension of places.

    `steps` lead from the pixel of a place to that of the next, `lines` from its cotangent.
    """

    def __init__(self, v: Vectors, dtype: str, steps: Sequence[int], lines: Sequence[int]) -> None:
        self.v, self.f, self.dtype = v, v.function, dtype
        self.pixels, self.lines = steps, lines
        self.element = element_type(dtype)

    def emit(self, vectors: int, masked: bool, offsets: Sequence[int]) -> None:
        """Emit the loads of the sums, the loops that add all places, and the stores."""
        v, count = self.v, len(offsets) * vectors
        rest = self.f.sub("%columns", (vectors - 1) * v.lanes)
        last = v.mask_below(rest) if masked else None
        self.steps = Steps(v, self.dtype, vectors, offsets, str(self.pixels[-1]), last)
        places = [self._at("%sums", i * v.lanes) for i in range(count)]
        start = [v.load(place, self.dtype) for place in places]
        for place, total in zip(places, self._axis(0, "%s", "%v", start), strict=True):
            v.store(total, place, self.dtype)

    def _axis(self, axis: int, s: Value, v: Value, sums: list[Value]) -> list[Value]:
        """Emit the sums with the places of one dimension, and of all after it, added."""
        f, type, count = self.f, self.v.type(self.dtype), f"%count{axis}"
        if axis == len(self.lines) - 1:
            return self.steps.run((s, v), str(self.lines[-1]), count, UNROLL, start=sums)

        def line(i: Value, carried: list[Value]) -> list[Value]:
            pixel = self._at(s, f.mul(i, self.pixels[axis]))
            return self._axis(axis + 1, pixel, self._at(v, f.mul(i, self.lines[axis])), carried)

        return f.loop(0, count, 1, line, [(type, x) for x in sums])

    def _at(self, base: Value, index: Value | int) -> Value:
        return self.f.address(base, index, self.element)
