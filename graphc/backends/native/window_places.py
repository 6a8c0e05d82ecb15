"""The tiles of a window's product: neighbouring places of an image times a panel of columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, groupby
from typing import NamedTuple

from graphc.backends.native.elements import Epilogue
from graphc.backends.native.gemm_frame import Panel
from graphc.backends.native.gemm_tile import UNROLL, Steps
from graphc.backends.native.ir import Function, Range, Value
from graphc.backends.native.vectors import Vectors, element_type
from graphc.ir.forms import Phase, Window
from graphc.kernels.kernel import CHUNK

STRAIGHT = 160
"""The most additions of a tile for which a run is fully unrolled."""


class PanelFunction:
    """A function that computes places of an image for a panel of columns.

    `%s` is the image, `%v` the packed panel, `%top` the row of the first place.
    """

    def __init__(self, panel: Panel, f: Function) -> None:
        frame, vectors, tile = panel.frame, panel.vectors, panel.frame.tile
        self.f, self.vectors, self.dtype = f, vectors, tile.dtype
        self.v = Vectors(f, tile.lanes)
        self.element, self.type = element_type(tile.dtype), self.v.type(tile.dtype)
        self.pitch, self.most = panel.pitch, tile.height(vectors)
        self._last = panel.last_mask(self.v)
        self._epilogue = Epilogue(frame.elements(self.v), vectors, panel.masked)

    def row(self, rows: Value, number: int) -> list[Value]:
        """Load a row of the panel, among rows that begin at an address."""
        start = self.at(rows, number * self.pitch)
        starts = range(0, self.pitch, self.v.lanes)
        return [self.v.load(self.at(start, i), self.dtype) for i in starts]

    def steps(self, offsets: Sequence[int]) -> Steps:
        """Return the emitter of the sums of places at these offsets."""
        return Steps(self.v, self.dtype, self.vectors, list(offsets), "1", self._last)

    def run_body(self, sums: Sequence[Value], row: Value, spacing: int = 1) -> None:
        """Emit the body on the sums of a tile, whose rows begin with `row`."""
        count = len(sums) // self.vectors
        self._epilogue.rows(row, count, lambda r, j: sums[r * self.vectors + j], spacing)

    def at(self, base: Value, index: Value | int) -> Value:
        """Return the address `index` elements past `base`."""
        return self.f.address(base, index, self.element)


class _Run(NamedTuple):
    """Neighbouring offsets of a line of the filter, and the places of a tile that they serve."""

    first: int
    end: int
    places: tuple[int, ...]


class _Tile(NamedTuple):
    """Places side by side, and the offsets of the filter at which each meets a pixel."""

    offsets: tuple[int, ...]
    """The elements from the first place to each."""
    ranges: Sequence[Range]
    """The first and end offset in each dimension before those of `runs`."""
    runs: tuple[_Run, ...] | None
    """The offsets of the last dimension; None if `ranges` has all dimensions."""


class Places:
    """The emitter of the tiles of an image, which are places side by side.

    The image is read where it lies.  Offsets of the filter outside it are left out: in the last
    dimension when code is emitted, in others when it runs.
    """

    def __init__(self, panel: PanelFunction, window: Window) -> None:
        """Prepare; there are no zeros between the pixels of the window."""
        self.panel, self.f, self.window = panel, panel.f, window
        self.across, self.pitches = window.places[-1], window.pixel_pitches
        self.step = window.stride[-1] * window.pixel
        self.joined = window.dilation[-1] == window.groups == 1
        self.lines = _lines(window, panel.most)

    def emit(self) -> None:
        """Emit whole tiles of places, and single places where a thread's rows split a tile."""
        f, block = self.f, self.lines * self.across
        if self.window.count % block == 0 == CHUNK % block:
            f.loop("%low", "%high", block, lambda start, _: self._block(start))
        elif self.lines > 1:
            in_blocks(f, block, self._block, self._single)
        else:
            first, end = f.quotient("%low", block), f.ceiling("%high", block)
            f.loop(first, end, 1, lambda line, _: self._part(f.mul(line, block)))

    def _part(self, start: Value) -> None:
        """Emit the places of a line that are among [%low, %high)."""
        f = self.f
        low = f.larger(f.sub("%low", start), 0)
        high = f.smaller(f.sub("%high", start), self.across)
        first = f.smaller(self._edge(low, f.ceiling), high)
        last = f.larger(self._edge(high, f.quotient), first)

        def singles(low: Value, high: Value) -> None:
            f.loop(low, high, 1, lambda place, _: self._single(f.add(start, place)))

        singles(low, first)
        self._line(start, (first, last))
        singles(last, high)

    def _edge(self, place: Value, parts: Callable[[Value, int], Value]) -> Value:
        """Emit a place of a line rounded to the edge of a tile; `parts` divides, up or down."""
        f, edge, begin = self.f, "0", 0
        for count, width in cuts(self.across, self.panel.most):
            inside = f.smaller(f.larger(f.sub(place, begin), 0), count * width)
            edge = f.add(edge, f.mul(parts(inside, width), width))
            begin += count * width
        return edge

    def _block(self, start: Value) -> None:
        """Emit whole lines of places."""
        if self.lines == 1:
            self._line(start, ("0", str(self.across)))
            return
        window, above = self.window, self.window.stride[-2] * self.pitches[-2]
        index, ranges = self._line_start(start)
        places = [(i, j) for i in range(self.lines) for j in range(self.across)]
        offsets = tuple(i * above + j * self.step for i, j in places)
        runs = _runs(window, [j for _, j in places])
        self._tile(_Tile(offsets, ranges, runs), index, self.f.add("%top", start))

    def _line(self, start: Value, places: Range) -> None:
        """Emit the tiles of a line between two places, which are edges of tiles."""
        index, ranges = self._line_start(start)
        for tile in _equal_tiles(self.window, self.panel.most):
            self._tiles(tile, places, ranges, index, self.f.add("%top", start))

    def _line_start(self, start: Value) -> tuple[Value, list[Range]]:
        """Emit what `_start` does for the first place of a line, whose pixel may be on padding."""
        f, window = self.f, self.window
        line = f.quotient(start, self.across)
        numbers = f.indices(line, window.places[1:-1])[: len(window.places) - 1]
        index, ranges = self._start(numbers)
        return f.sub(index, window.before[-1] * window.pixel), ranges

    def _tiles(
        self,
        some: _Equal,
        places: Range,
        ranges: Sequence[Range],
        index: Value,
        row: Value,
    ) -> None:
        """Emit the code of neighbouring tiles that meet the same offsets, between two places."""
        f = self.f
        offsets = tuple(j * self.step for j in range(some.width))
        low, high = f.larger(places[0], some.first), f.smaller(places[1], some.end)
        for first in f.each(low, high, some.width):
            at = f.add(index, f.mul(first, self.step))
            self._tile(_Tile(offsets, ranges, some.runs), at, f.add(row, first))

    def _single(self, place: Value) -> None:
        index, ranges = self._start(self.f.indices(place, self.window.places[1:]))
        self._tile(_Tile((0,), ranges, None), index, self.f.add("%top", place))

    def _start(self, numbers: Sequence[Value]) -> tuple[Value, list[Range]]:
        """Emit the index of the pixel at offset 0 of a place, and the offsets that meet pixels.

        `numbers` are the place's first indices.  The index may lie before the image.
        """
        f, window, index = self.f, self.window, "0"
        ranges: list[Range] = []
        for axis, number in enumerate(numbers):
            at = f.sub(f.mul(number, window.stride[axis]), window.before[axis])
            index = f.add(index, f.mul(at, self.pitches[axis]))
            ranges.append(self._met(axis, at))
        return index, ranges

    def _met(self, axis: int, at: Value) -> Range:
        """Emit the first and end offset at which the place with offset 0 at `at` meets pixels."""
        f, window, count = self.f, self.window, self.window.kernel[axis]
        if not window.is_padded(axis):
            return "0", str(count)
        first = f.ceiling(f.larger(f.sub(0, at), 0), window.dilation[axis])
        room = f.larger(f.sub(window.space[axis], at), 0)
        return first, f.smaller(f.ceiling(room, window.dilation[axis]), count)

    def _tile(self, tile: _Tile, index: Value, row: Value) -> None:
        """Emit a tile, of which the first place has offset 0 at `index`."""
        sums: list[Value] = ["zeroinitializer"] * (len(tile.offsets) * self.panel.vectors)
        self.panel.run_body(self._sums(tile, 0, index, "0", sums), row)

    def _sums(
        self, tile: _Tile, axis: int, index: Value, number: Value, sums: list[Value]
    ) -> list[Value]:
        """Emit the sums with all offsets from an axis on added.

        `number` is that of the offset in the dimensions before.
        """
        if axis == len(tile.ranges):
            return self._of_line(tile, index, number, sums)
        f, window = self.f, self.window
        pitch = window.dilation[axis] * self.pitches[axis]

        def offset(i: Value, sums: list[Value]) -> list[Value]:
            following = f.add(f.mul(number, window.kernel[axis]), i)
            return self._sums(tile, axis + 1, f.add(index, f.mul(i, pitch)), following, sums)

        return f.loop(*tile.ranges[axis], 1, offset, [(self.panel.type, x) for x in sums])

    def _of_line(self, tile: _Tile, index: Value, number: Value, sums: list[Value]) -> list[Value]:
        """Emit the sums with the offsets of a line of the filter added."""
        f, window, panel = self.f, self.window, self.panel
        if tile.runs is None:
            return self._run(tile.offsets, (index, number), 1, sums)
        sums, number = [*sums], f.mul(number, window.kernel[-1])
        for run in tile.runs:
            numbers = [p * panel.vectors + j for p in run.places for j in range(panel.vectors)]
            added = self._of_run(tile, run, (index, number), [sums[n] for n in numbers])
            for n, x in zip(numbers, added, strict=True):
                sums[n] = x
        return sums

    def _of_run(
        self, tile: _Tile, run: _Run, start: tuple[Value, Value], sums: list[Value]
    ) -> list[Value]:
        """Emit the sums of the places of a run with its offsets added."""
        f, (index, number) = self.f, start
        offsets = [tile.offsets[place] for place in run.places]
        pitch = self.window.dilation[-1] * self.window.pixel
        count = run.end - run.first if self.joined else 1

        def some(i: Value, sums: list[Value]) -> list[Value]:
            at = f.add(index, f.mul(i, pitch)), f.add(number, i)
            return self._run(offsets, at, count, sums)

        return f.loop(run.first, run.end, count, some, [(self.panel.type, x) for x in sums])

    def _run(
        self,
        offsets: Sequence[int],
        start: tuple[Value, Value],
        count: int,
        sums: Sequence[Value],
    ) -> list[Value]:
        """Emit the sums of some places with `count` neighbouring pixels added.

        `start` are the index of the first pixel for offset 0 of the tile, and that of the filter.
        """
        f, panel, channels = self.f, self.panel, self.window.channels
        (index, number), length = start, count * channels
        s = panel.at("%s", f.add(index, offsets[0]))
        v = panel.at("%v", f.mul(number, channels * panel.pitch))
        steps = panel.steps([offset - offsets[0] for offset in offsets])
        unroll = length if len(sums) * length <= STRAIGHT else UNROLL
        unroll = unroll if len(offsets) > 1 else 1
        return steps.run((s, v), str(panel.pitch), str(length), unroll, start=sums)


class _Equal(NamedTuple):
    """Neighbouring tiles from place `first` to before `end`, which meet the same offsets."""

    first: int
    end: int
    width: int
    runs: tuple[_Run, ...]


def _equal_tiles(window: Window, most: int) -> Iterator[_Equal]:
    """Yield the tiles of a line of places, equal neighbours together."""
    widths = [width for count, width in cuts(window.places[-1], most) for _ in range(count)]
    starts = accumulate(widths[:-1], initial=0)
    tiles = [
        (width, start, _runs(window, range(start, start + width)))
        for start, width in zip(starts, widths, strict=True)
    ]
    for (width, runs), equal in groupby(tiles, key=lambda tile: (tile[0], tile[2])):
        columns = [start for _, start, _ in equal]
        yield _Equal(columns[0], columns[-1] + width, width, runs)


def _runs(window: Window, places: Sequence[int]) -> tuple[_Run, ...]:
    """Return the offsets of a line of the filter that serve the same of these places."""
    ranges = [window.met(-1, place) for place in places]
    served = [
        (offset, tuple(i for i, met in enumerate(ranges) if offset in met))
        for offset in range(window.kernel[-1])
    ]
    found = []
    for some, equal in groupby(served, key=lambda pair: pair[1]):
        offsets = [offset for offset, _ in equal]
        if some:
            found.append(_Run(offsets[0], offsets[-1] + 1, some))
    return tuple(found)


def in_blocks(
    f: Function, size: int, block: Callable[[Value], None], single: Callable[[Value], None]
) -> None:
    """Emit whole blocks of the places [%low, %high), and single places around them."""
    first = f.smaller(f.mul(f.ceiling("%low", size), size), "%high")
    last = f.larger(f.mul(f.quotient("%high", size), size), first)
    f.loop("%low", first, 1, lambda place, _: single(place))
    f.loop(first, last, size, lambda place, _: block(place))
    f.loop(last, "%high", 1, lambda place, _: single(place))


def in_phases(
    f: Function, window: Window, numbers: Sequence[Value], phases: Sequence[Phase]
) -> Iterator[None]:
    """Emit a branch around code that runs if a place with these indices is in these phases."""
    conditions = []
    for number, phase, divisor in zip(numbers, phases, window.divisor, strict=False):
        if divisor > 1:
            rest = f.remainder(number, divisor)
            conditions.append(f.value(f"icmp eq i64 {rest}, {phase.first}"))
    yield from f.only_if(*conditions)


def _lines(window: Window, most: int) -> int:
    """Return the lines of places in a tile: the most that divide all and fit; 1 if offsets vary."""
    if len(window.places) == 1 or window.is_padded(-2):
        return 1
    lines, across = window.places[-2:]
    return max(n for n in range(1, lines + 1) if lines % n == 0 and (n == 1 or n * across <= most))


def cuts(size: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield the counts and widths of nearly equal parts of a size, each at most `most`."""
    parts = -(-size // most)
    width, wider = divmod(size, parts)
    for count, found in ((wider, width + 1), (parts - wider, width)):
        if count:
            yield count, found
