"""Weight gradients of convolutions: sums over all places of all images.

The rows are the offsets of the filter and their channels; a tile has neighbouring rows.  Images are
read in place.  If offsets leave them, a tile has rows of one line of the filter, and each row sums
over the places whose pixels exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from typing import NamedTuple

from graphc.backends.native.gemm_frame import Panel
from graphc.backends.native.gemm_tile import UNROLL, Steps
from graphc.backends.native.gemm_windows import WindowProduct
from graphc.backends.native.ir import Function, Range, Value
from graphc.backends.native.loop_structure import clear
from graphc.backends.native.vectors import Vectors, element_type
from graphc.backends.native.window_lines import Stretch, stretches_of
from graphc.backends.native.window_places import cuts
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
    stretches: tuple[Stretch, ...]
    """The places of the last dimension that sum the same rows, or none if all sum all of them."""


class WindowSums(WindowProduct):
    """A convolution's weight gradient: loops over panels, images, and tiles of rows."""

    def panel(self, rows: Range, panel: Panel) -> None:
        """Emit the sums of a panel over all images, and the body on them."""
        f, frame = self.f, self.frame
        width = panel.vectors * panel.frame.tile.lanes
        sums = frame.address(self.packed, f.mul(rows[0], width))
        size = f.mul(f.sub(rows[1], rows[0]), width)
        clear(Vectors(f, panel.frame.tile.lanes), sums, size, frame.tile.dtype)
        for number in f.each(0, f.quotient(frame.k, self.window.count)):
            s = self.image(number, panel.column)
            first = f.mul(number, self.window.count * frame.pitch_b)
            v = frame.address(frame.b, f.add(first, panel.column))
            for start in range(0, self.window.depth, CHUNK):
                f.when(self._has(rows, start), partial(self._chunk, panel, s, v, start))
        panel.run_body(sums, rows[0], f.sub(rows[1], rows[0]))

    def _has(self, rows: Range, start: int) -> Value:
        """Emit the condition that a chunk of rows belongs to this thread."""
        f = self.f
        after = f.value(f"icmp sge i64 {start}, {rows[0]}")
        return f.both(after, f.less(start, rows[1]))

    def _chunk(self, panel: Panel, s: Value, v: Value, start: int) -> None:
        """Emit the tiles of a chunk of rows."""
        frame = panel.frame
        width, height = panel.vectors * frame.tile.lanes, frame.tile.height(panel.vectors)
        for first, end in self._cuts(start, height):
            tile = self._tile(first, end)
            if prod(tile.counts):
                name = self._emit_tile(panel, tile)
                sums = frame.address(self.packed, first * width)
                places = frame.address(v, tile.place * frame.pitch_b)
                pixels = frame.address(s, tile.pixel)
                self.f.call(name, pixels, places, sums, panel.columns, *tile.counts)

    def _cuts(self, start: int, height: int) -> Iterator[tuple[int, int]]:
        """Yield the first and end row of each tile of a chunk."""
        window = self.window
        line = window.depth if window.is_direct else window.kernel[-1] * window.channels
        end = min(start + CHUNK, window.depth)
        while start < end:
            for count, rows in cuts(min(end, (start // line + 1) * line) - start, height):
                for _ in range(count):
                    yield start, start + rows
                    start += rows

    def _tile(self, first: int, end: int) -> _Tile:
        """Return the tile of some rows."""
        window = self.window
        if window.is_direct:
            offsets = tuple(column - window.columns[first] for column in window.columns[first:end])
            return _Tile(offsets, window.columns[first], 0, window.places, ())
        offset, channel = divmod(first, window.channels)
        *outer, at = _index(offset, window.kernel)
        met = [window.places_met(axis, i) for axis, i in enumerate(outer)]
        rows = [divmod(row, window.channels) for row in range(channel, channel + end - first)]
        last, stretches = stretches_of([window.places_met(-1, at + i) for i, _ in rows])
        pixel = place = 0
        for axis, (i, places) in enumerate(zip((*outer, at), (*met, last), strict=True)):
            position = places.start * window.stride[axis] + i * window.dilation[axis]
            pixel = pixel * window.space[axis] + position - window.before[axis]
            place = place * window.places[axis] + places.start
        step = window.dilation[-1] * window.pixel
        offsets = tuple(i * step + c - channel for i, c in rows)
        counts = tuple(len(places) for places in (*met, last))
        return _Tile(offsets, pixel * window.pixel + channel, place, counts, stretches)

    def _emit_tile(self, panel: Panel, some: _Tile) -> str:
        """Emit the function that adds the products of an image's pixels to sums."""
        tile, masked, pitch = panel.frame.tile, panel.masked, panel.frame.pitch_b
        window, offsets, stretches = self.window, some.offsets, some.stretches
        pitches = window.pixel_pitches
        steps = tuple(s * step for s, step in zip(window.stride, pitches, strict=True))
        lines = tuple(pitch * prod(self.window.places[i + 1 :]) for i in range(len(steps)))

        def emit(f: Function) -> None:
            v = Vectors(f, tile.lanes)
            _Sums(v, tile.dtype, steps, lines, stretches).emit(panel.vectors, masked, offsets)

        key = (
            "sums",
            tile.dtype,
            tile.lanes,
            panel.vectors,
            masked,
            offsets,
            steps,
            lines,
            stretches,
        )
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

    def __init__(
        self,
        v: Vectors,
        dtype: str,
        steps: Sequence[int],
        lines: Sequence[int],
        stretches: Sequence[Stretch],
    ) -> None:
        self.v, self.f, self.dtype = v, v.function, dtype
        self.pixels, self.lines, self.stretches = steps, lines, stretches
        self.element = element_type(dtype)

    def emit(self, vectors: int, masked: bool, offsets: Sequence[int]) -> None:
        """Emit the loads of the sums, the loops that add all places, and the stores."""
        v, count = self.v, len(offsets) * vectors
        rest = self.f.sub("%columns", (vectors - 1) * v.lanes)
        self.last = v.mask_below(rest) if masked else None
        self.vectors, self.offsets = vectors, offsets
        places = [self._at("%sums", i * v.lanes) for i in range(count)]
        start = [v.load(place, self.dtype) for place in places]
        for place, total in zip(places, self._axis(0, "%s", "%v", start), strict=True):
            v.store(total, place, self.dtype)

    def _axis(self, axis: int, s: Value, v: Value, sums: list[Value]) -> list[Value]:
        """Emit the sums with the places of one dimension, and of all after it, added."""
        f, type, count = self.f, self.v.type(self.dtype), f"%count{axis}"
        if axis == len(self.lines) - 1:
            return self._line(s, v, sums)

        def line(i: Value, carried: list[Value]) -> list[Value]:
            pixel = self._at(s, f.mul(i, self.pixels[axis]))
            return self._axis(axis + 1, pixel, self._at(v, f.mul(i, self.lines[axis])), carried)

        return f.loop(0, count, 1, line, [(type, x) for x in sums])

    def _line(self, s: Value, v: Value, sums: list[Value]) -> list[Value]:
        """Emit the sums with the places of the last dimension added, stretch by stretch."""
        rows = tuple(range(len(self.offsets)))
        sums = [*sums]
        for stretch in self.stretches or (Stretch(0, f"%count{len(self.lines) - 1}", rows),):
            numbers = [r * self.vectors + j for r in stretch.rows for j in range(self.vectors)]
            offsets = [self.offsets[row] for row in stretch.rows]
            steps = Steps(
                self.v, self.dtype, self.vectors, offsets, str(self.pixels[-1]), self.last
            )
            at = (
                self._at(s, stretch.first * self.pixels[-1]),
                self._at(v, stretch.first * self.lines[-1]),
            )
            start = [sums[n] for n in numbers]
            added = steps.run(at, str(self.lines[-1]), stretch.places, UNROLL, start=start)
            for n, x in zip(numbers, added, strict=True):
                sums[n] = x
        return sums

    def _at(self, base: Value, index: Value | int) -> Value:
        return self.f.address(base, index, self.element)
