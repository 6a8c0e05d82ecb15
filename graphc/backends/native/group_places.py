"""A line of places in a grouped convolution: its pixels, its tiles, and the sums over it.

An offset of the filter outside the image reads zeros: an address is selected, and nothing is
copied.  Channels of a pixel are loaded so that each column of a panel has those of its group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from typing import NamedTuple

from graphc.backends.maths import apply
from graphc.backends.native.gemm_frame import Frame
from graphc.backends.native.ir import Function, Value
from graphc.backends.native.vectors import Vectors, element_type
from graphc.backends.native.window_places import PanelFunction, cuts
from graphc.ir.forms import Phase, Sizes, Window

STRAIGHT = 16
"""The most factors of a line of the filter for which its offsets are unrolled."""


class FilterLine(NamedTuple):
    """A line of the filter: its number, and the address of the line of pixels that it meets."""

    number: int
    pixels: Value


def line_arguments(rank: int) -> str:
    """Return the arguments: the image, a line of zeros, the index of the line per dimension.

    The last dimension, which the line of places runs over, has none.
    """
    return ", ".join(["ptr %image", "ptr %zeros", *(f"i64 %at{axis}" for axis in range(rank - 1))])


class GroupLine:
    """A line of places, in a function that has `line_arguments`."""

    def __init__(
        self, f: Function, element: str, window: Window, outer: Sequence[Phase], last: Phase
    ) -> None:
        """Prepare; `outer` are the phases of the line, `last` that of the places in it."""
        self.f, self.element, self.window = f, element, window
        self.phase = last
        self.filter_lines = [self._line(outer, met) for met in product(*(p.met for p in outer))]

    def _line(self, phases: Sequence[Phase], met: Sequence[tuple[int, int]]) -> FilterLine:
        f, window = self.f, self.window
        number, index, there = 0, "0", None
        for axis, (offset, at) in enumerate(met):
            number = number * window.kernel[axis] + offset
            place = f.quotient(f"%at{axis}", window.divisor[axis])
            pixel = f.add(f.mul(place, window.stride[axis]), at)
            pitch = prod(window.space[axis + 1 :]) * window.pixel
            index = f.add(index, f.mul(pixel, pitch))
            if inside(window, axis, phases[axis]) != (0, phases[axis].places):
                is_pixel = f.value(f"icmp ult i64 {pixel}, {window.space[axis]}")
                there = is_pixel if there is None else f.value(f"and i1 {there}, {is_pixel}")
        pixels = f.address("%image", index, self.element)
        return FilterLine(number, pixels if there is None else self._or_zeros(there, pixels))

    def pixel(self, line: FilterLine, place: Value, at: Value | int, *, checked: bool) -> Value:
        """Emit the address of the pixel that a place meets; if `checked`, zeros if it has none."""
        f, window = self.f, self.window
        number = f.add(f.mul(place, window.stride[-1]), at)
        address = f.address(line.pixels, f.mul(number, window.pixel), self.element)
        if not checked:
            return address
        there = f.value(f"icmp ult i64 {number}, {window.space[-1]}")
        return self._or_zeros(there, address)

    def _or_zeros(self, there: Value, address: Value) -> Value:
        return self.f.value(f"select i1 {there}, ptr {address}, ptr %zeros")

    def offsets(
        self,
        body: Callable[[Value, Value, list[Value]], list[Value]],
        carried: list[Value],
        type: str,
    ) -> list[Value]:
        """Emit `carried = body(offset, at, carried)` for each offset of a line of the filter.

        Return the last values, which are of `type`.  The offsets are evenly spaced.
        """
        met = self.phase.met
        if not met:
            return carried
        (offset, at), (second, then) = met[0], met[min(1, len(met) - 1)]

        def one(i: Value | int, carried: list[Value]) -> list[Value]:
            f = self.f
            number = f.add(f.mul(i, second - offset), offset)
            return body(number, f.add(f.mul(i, then - at), at), carried)

        if self.straight < len(met):
            return self.f.loop(0, len(met), 1, one, [(type, x) for x in carried])
        for i in range(len(met)):
            carried = one(i, carried)
        return carried

    @property
    def straight(self) -> int:
        """The number of offsets of a line of the filter whose code is unrolled: all, or one."""
        many = len(self.phase.met) * self.window.channels > STRAIGHT
        return 1 if many else len(self.phase.met)


def inside(window: Window, axis: int, phase: Phase) -> Sizes:
    """Return the first and end place of a phase between which all offsets meet pixels."""
    first, end, stride = 0, phase.places, window.stride[axis]
    for _, at in phase.met:
        first = max(first, -(at // stride))
        end = min(end, (window.space[axis] - 1 - at) // stride + 1)
    first = min(first, phase.places)
    return first, max(first, end)


class GroupChannels:
    """The loads of channels for the panel that begins at `%column` and has `columns` columns.

    If each group has one channel and one column, channels are neighbours, as columns are.
    If groups end with vectors, lanes of one load are repeated.  Others are gathered.
    """

    def __init__(self, v: Vectors, dtype: str, window: Window, units: int, columns: int) -> None:
        """Prepare; `units` are the columns of a group."""
        self.v, self.f, self.dtype, self.element = v, v.function, dtype, element_type(dtype)
        self.channels, self.units, self.lanes = window.channels, units, v.lanes
        starts = range(0, columns, self.lanes)
        self.counts = [min(columns - start, self.lanes) for start in starts]
        self.in_line = self.channels <= units and self.lanes % units == 0
        if self.in_line:
            first = self.f.quotient("%column", units)
            self.start = self.f.mul(first, self.channels)
            return
        self.offsets = [self._offsets(self.f.add("%column", start)) for start in starts]

    def load(self, pixel: Value, channel: int) -> list[Value]:
        """Emit, for each column, this channel of its group in the pixel at address `pixel`."""
        if not self.in_line:
            place = self.f.address(pixel, channel, self.element)
            masks = map(self._mask, self.counts)
            return [
                self.v.gather(place, offsets, self.dtype, mask)
                for offsets, mask in zip(self.offsets, masks, strict=True)
            ]
        return [self._repeated(pixel, number, channel) for number in range(len(self.counts))]

    def _repeated(self, pixel: Value, number: int, channel: int) -> Value:
        """Emit a load that reads each channel once, and a shuffle that repeats it per column."""
        each, units = self.channels, self.units
        start = self.f.add(self.start, number * self.lanes // units * each)
        mask = self._mask(self.counts[number] // units * each)
        x = self.v.load(self.f.address(pixel, start, self.element), self.dtype, mask)
        if units == 1:
            return x
        lanes = [lane // units * each + channel for lane in range(self.lanes)]
        return self.v.shuffle(x, "poison", lanes, self.dtype)

    def _mask(self, count: int) -> Value | None:
        return None if count == self.lanes else self.v.mask_below(count)

    def _offsets(self, first: Value) -> Value:
        """Emit the offset of the first channel of each column's group in the pixel."""
        v = self.v
        columns, units = v.numbers_from(first), v.const(self.units, "int64")
        group = apply(v, "floor_div", [columns, units], ["int64", "int64"], "int64")
        return v.mul(group, v.const(self.channels, "int64"), "int64")


LONGEST = 1000
"""About the most additions in the text of a tile, whose places are unrolled."""


class GroupPlaces:
    """The emitter of the places [%from, %to) of a line, whose rows begin with `%top`.

    In each phase, places all of whose offsets meet pixels are computed in tiles of neighbours;
    places at the edges of the image, and left-over ones, one by one.
    """

    def __init__(
        self, panel: PanelFunction, window: Window, outer: Sequence[Phase], channels: GroupChannels
    ) -> None:
        """Prepare; `outer` are the phases of the line."""
        self.panel, self.f, self.window, self.channels = panel, panel.f, window, channels
        self.outer = outer

    def emit(self) -> None:
        """Emit the places of all phases."""
        for phase in self.window.phases(-1):
            self._phase(phase)

    def _phase(self, phase: Phase) -> None:
        f = self.f
        line = GroupLine(f, self.panel.element, self.window, self.outer, phase)
        start, end = (self._counted(phase, edge) for edge in ("%from", "%to"))
        first, last = inside(self.window, -1, phase)
        width = _width(last - first, self._most(line))
        if first:
            f.loop(start, f.smaller(first, end), 1, lambda i, _: self._tile(line, i, 1, True))
        low = f.larger(start, first)
        count = f.larger(f.sub(f.smaller(end, last), low), 0)
        tiled = f.add(low, f.mul(f.quotient(count, width), width))
        f.loop(low, tiled, width, lambda i, _: self._tile(line, i, width, False))
        if width > 1 or last < phase.places:
            checked = last < phase.places
            f.loop(tiled, end, 1, lambda i, _: self._tile(line, i, 1, checked))

    def _most(self, line: GroupLine) -> int:
        """Return the places of a tile: as many as registers allow, fewer if the code is long."""
        text = len(line.filter_lines) * line.straight * self.window.channels * self.panel.vectors
        return max(min(self.panel.most, LONGEST // max(text, 1)), min(self.panel.most, 2))

    def _counted(self, phase: Phase, place: Value) -> Value:
        """Emit the number of places of a phase that come before a place."""
        f, divisor = self.f, self.window.divisor[-1]
        return f.quotient(f.add(place, divisor - 1 - phase.first), divisor)

    def _tile(self, line: GroupLine, first: Value, width: int, checked: bool) -> None:
        """Emit `width` places of a phase from number `first`; `checked` ones may miss pixels."""
        f, panel = self.f, self.panel
        sums: list[Value] = ["zeroinitializer"] * (width * panel.vectors)
        places = [f.add(first, i) for i in range(width)]
        for filter_line in line.filter_lines:
            start = filter_line.number * self.window.kernel[-1]

            def offset(
                number: Value,
                at: Value,
                sums: list[Value],
                filter_line: FilterLine = filter_line,
                start: int = start,
            ) -> list[Value]:
                """Emit the multiply-adds of an offset of the filter line."""
                pixels = [line.pixel(filter_line, place, at, checked=checked) for place in places]
                return self._offset(f.add(number, start), pixels, sums)

            sums = line.offsets(offset, sums, panel.type)
        divisor = self.window.divisor[-1]
        row = f.add(f.mul(first, divisor), line.phase.first)
        panel.run_body(sums, f.add("%top", row), divisor)

    def _offset(self, number: Value, pixels: Sequence[Value], sums: list[Value]) -> list[Value]:
        """Emit the sums with an offset of the filter, which meets these pixels, added."""
        f, panel = self.f, self.panel
        first = f.mul(number, self.window.channels)
        for channel in range(self.window.channels):
            factors = panel.row(f.add(first, channel))
            met = [x for pixel in pixels for x in self.channels.load(pixel, channel)]
            terms = zip(met, factors * len(pixels), sums, strict=True)
            sums = [panel.v.fma(x, factor, total, panel.dtype) for x, factor, total in terms]
        return sums


def _width(places: int, most: int) -> int:
    """Return how many places make a tile so that the fewest factors and pixels are read.

    A wide tile reads a factor once for many places; left-over places are computed one by one.
    """

    def reads(width: int) -> int:
        tiles, rest = divmod(places, width)
        return tiles * (width + 1) + 2 * rest

    return min(range(most, 0, -1), key=reads)


FilterRow = tuple[FilterLine, int, int, int]
"""A row of the sums: the line of the filter, the offset in it, the number of the pixel that it
meets at the first place, and the channel."""


class GroupSums:
    """The emitter that adds the products of a line to `%sums`: a row per offset and channel."""

    def __init__(self, f: Function, frame: Frame, window: Window, columns: int) -> None:
        tile, self.f, self.window = frame.tile, f, window
        self.dtype, self.pitch, self.element = tile.dtype, frame.pitch_b, element_type(tile.dtype)
        self.v, self.vectors = Vectors(f, tile.lanes), tile.vectors_of(columns)
        self.type, self.most = self.v.type(self.dtype), tile.height(self.vectors)
        units = frame.scratch.columns // window.groups
        self.channels = GroupChannels(self.v, self.dtype, window, units, columns)
        rest = columns % tile.lanes
        self.masks: list[Value | None] = [None] * self.vectors
        if rest:
            self.masks[-1] = self.v.mask_below(rest)
        *outer, last = (window.phases(axis) for axis in range(len(window.space)))
        assert all(len(phases) == 1 for phases in (*outer, last)), "pixels are side by side"
        self.line = GroupLine(f, self.element, window, [phases[0] for phases in outer], last[0])

    def emit(self) -> None:
        """Emit all rows, as many at a time as there are registers for."""
        rows = [
            (line, offset, at, channel)
            for line in self.line.filter_lines
            for offset, at in self.line.phase.met
            for channel in range(self.window.channels)
        ]
        done = 0
        for count, height in cuts(len(rows), self.most):
            for _ in range(count):
                self._rows(rows[done : done + height])
                done += height

    def _rows(self, rows: Sequence[FilterRow]) -> None:
        """Emit the sums of some rows, over all places in order."""
        f, window = self.f, self.window
        filter_line, offset, _, channel = rows[0]
        number = filter_line.number * window.kernel[-1] + offset
        width = self.vectors * self.v.lanes
        start = f.address("%sums", (number * window.channels + channel) * width, self.element)
        held = [
            f.address(start, i * self.v.lanes, self.element)
            for i in range(len(rows) * self.vectors)
        ]
        sums = [self.v.load(place, self.dtype) for place in held]
        first, last = inside(window, -1, self.line.phase)
        sums = self._places(rows, (0, first), sums, checked=True)
        sums = self._places(rows, (first, last), sums, checked=False)
        sums = self._places(rows, (last, window.places[-1]), sums, checked=True)
        for place, x in zip(held, sums, strict=True):
            self.v.store(x, place, self.dtype)

    def _places(
        self,
        rows: Sequence[FilterRow],
        places: tuple[int, int],
        sums: list[Value],
        *,
        checked: bool,
    ) -> list[Value]:
        """Emit the sums with a range of places added; `checked` ones may miss pixels."""
        if places[0] == places[1]:
            return sums

        def place(i: Value, sums: list[Value]) -> list[Value]:
            return self._place(rows, i, sums, checked)

        return self.f.loop(*places, 1, place, [(self.type, x) for x in sums])

    def _place(
        self,
        rows: Sequence[FilterRow],
        place: Value,
        sums: list[Value],
        checked: bool,
    ) -> list[Value]:
        f = self.f
        start = f.address("%v", f.mul(place, self.pitch), self.element)
        factors = [
            self.v.load(f.address(start, j * self.v.lanes, self.element), self.dtype, mask)
            for j, mask in enumerate(self.masks)
        ]
        found, before = [], iter(sums)
        for filter_line, _, at, channel in rows:
            pixel = self.line.pixel(filter_line, place, at, checked=checked)
            for x, factor in zip(self.channels.load(pixel, channel), factors, strict=True):
                found.append(self.v.fma(x, factor, next(before), self.dtype))
        return found


def emit_sums(frame: Frame, window: Window, columns: int) -> str:
    """Emit the function that adds a line to the sums of a panel unless the module has it.

    Return its name.  The panel has `columns` columns.
    """
    tile = frame.tile
    sizes = tile.dtype, tile.lanes, columns, frame.scratch.columns, frame.pitch_b
    return frame.module.function(
        "sums",
        f"{line_arguments(len(window.space))}, ptr %v, ptr %sums, i64 %column",
        lambda f: GroupSums(f, frame, window, columns).emit(),
        ("group sums", sizes, window),
    )
