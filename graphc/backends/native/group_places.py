"""A line of places in a grouped convolution: its pixels, its tiles, and the sums over it.

An offset of the filter outside the image is left out, and nothing is copied.  Channels of a pixel
are loaded so that each column of a panel has those of its group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod

from graphc.backends.maths import apply
from graphc.backends.native.gemm_frame import Frame
from graphc.backends.native.ir import Function, Value
from graphc.backends.native.vectors import Vectors, element_type
from graphc.backends.native.window_lines import (
    FilterLine,
    Stretch,
    filter_lines,
    inside,
    stretches_of,
)
from graphc.backends.native.window_places import PanelFunction, cuts
from graphc.ir.forms import Phase, Window

STRAIGHT = 16
"""The most factors of a line of the filter for which its offsets are unrolled."""


def line_arguments(rank: int) -> str:
    """Return the arguments: the image, and the index of the line in all dimensions but the last."""
    return ", ".join(["ptr %image", *(f"i64 %at{axis}" for axis in range(rank - 1))])


class GroupLine:
    """A line of places, in a function that has `line_arguments`."""

    def __init__(
        self, f: Function, element: str, window: Window, outer: Sequence[Phase], last: Phase
    ) -> None:
        """Prepare; `outer` are the phases of the line, `last` that of the places in it."""
        self.f, self.element, self.window = f, element, window
        self.outer, self.phase = outer, last
        self.numbers = [f"%at{axis}" for axis in range(len(outer))]

    def number(self, place: Value, at: Value | int) -> Value:
        """Emit the number of the pixel, in its line, that a place meets."""
        return self.f.add(self.f.mul(place, self.window.stride[-1]), at)

    def pixel(self, pixels: Value, place: Value, at: Value | int) -> Value:
        """Emit the address of the pixel that a place meets in the line at address `pixels`."""
        number = self.number(place, at)
        return self.f.address(pixels, self.f.mul(number, self.window.pixel), self.element)

    def has_pixel(self, place: Value, at: Value | int) -> Value:
        """Emit the condition that a place meets a pixel."""
        return self.f.value(f"icmp ult i64 {self.number(place, at)}, {self.window.space[-1]}")

    def lines(
        self,
        body: Callable[[Value, Value, list[Value]], list[Value]],
        carried: Sequence[tuple[str, Value]],
        number: Value = "0",
        index: Value = "0",
        axis: int = 0,
    ) -> list[Value]:
        """Emit `carried = body(number, index, carried)` for each line of the filter that is met.

        `number` is that of the line, `index` that of the first element of the line of pixels that
        it meets.  `carried` are (type, value) pairs; return the last values.
        """
        f, window = self.f, self.window
        if axis == len(self.outer):
            return body(number, index, [value for _, value in carried])
        types = [type for type, _ in carried]
        around = f.quotient(self.numbers[axis], window.divisor[axis])
        first = f.mul(around, window.stride[axis])
        pitch = prod(window.space[axis + 1 :]) * window.pixel

        def offset(number_of: Value, at: Value, values: list[Value]) -> list[Value]:
            """Emit the lines with an offset in this dimension, if it meets pixels."""
            pixel = f.add(first, at)
            line = f.add(f.mul(number, window.kernel[axis]), number_of)
            start = f.add(index, f.mul(pixel, pitch))

            def inner(values: list[Value]) -> list[Value]:
                return self.lines(body, [*zip(types, values, strict=True)], line, start, axis + 1)

            phase = self.outer[axis]
            checked = inside(window, axis, phase) != (0, phase.places)
            there = f.value(f"icmp ult i64 {pixel}, {window.space[axis]}") if checked else None
            return f.when_for(there, inner, [*zip(types, values, strict=True)])

        return _offsets(f, self.outer[axis], offset, carried)

    def offsets(
        self,
        body: Callable[[Value, Value, list[Value]], list[Value]],
        carried: Sequence[tuple[str, Value]],
    ) -> list[Value]:
        """Emit `carried = body(offset, at, carried)` for each offset of a line of the filter."""
        return _offsets(self.f, self.phase, body, carried, straight=self.straight > 1)

    @property
    def straight(self) -> int:
        """The number of offsets of a line of the filter whose code is unrolled: all, or one."""
        many = len(self.phase.met) * self.window.channels > STRAIGHT
        return 1 if many else len(self.phase.met)


def _offsets(
    f: Function,
    phase: Phase,
    body: Callable[[Value, Value, list[Value]], list[Value]],
    carried: Sequence[tuple[str, Value]],
    straight: bool = False,
) -> list[Value]:
    """Emit `carried = body(offset, at, carried)` for each offset that a phase meets.

    It is a loop unless the code is `straight`; the offsets are evenly spaced.
    """
    met, values = phase.met, [value for _, value in carried]
    if not met:
        return values
    (offset, at), (second, then) = met[0], met[min(1, len(met) - 1)]

    def one(i: Value, values: list[Value]) -> list[Value]:
        return body(
            f.add(f.mul(i, second - offset), offset), f.add(f.mul(i, then - at), at), values
        )

    if not straight:
        return f.loop(0, len(met), 1, one, carried)
    for i in range(len(met)):
        values = one(str(i), values)
    return values


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
        self.start: Value = "0"
        if self.in_line:
            first = self.f.quotient("%column", units)
            self.start = self.f.mul(first, self.channels)
            return
        self.offsets = [self._offsets(self.f.add("%column", start)) for start in starts]

    def of_panel(self, pixels: Value) -> Value:
        """Emit where `load` finds the channels of the panel, of pixels that begin at an address."""
        return self.f.address(pixels, self.start, self.element)

    def load(self, pixel: Value, channel: int) -> list[Value]:
        """Emit, for each column, this channel of its group in a pixel; see `of_panel`."""
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
        start = self.f.address(pixel, number * self.lanes // units * each, self.element)
        mask = self._mask(self.counts[number] // units * each)
        x = self.v.load(start, self.dtype, mask)
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
        text = line.straight * self.window.channels * self.panel.vectors
        return max(min(self.panel.most, LONGEST // max(text, 1)), min(self.panel.most, 2))

    def _counted(self, phase: Phase, place: Value) -> Value:
        """Emit the number of places of a phase that come before a place."""
        f, divisor = self.f, self.window.divisor[-1]
        return f.quotient(f.add(place, divisor - 1 - phase.first), divisor)

    def _tile(self, line: GroupLine, first: Value, width: int, checked: bool) -> None:
        """Emit `width` places of a phase from number `first`; `checked` ones may miss pixels."""
        f, panel, window = self.f, self.panel, self.window
        sums = [(panel.type, "zeroinitializer")] * (width * panel.vectors)
        pixels = self.channels.of_panel(line.pixel("%image", first, 0))
        row = window.channels * panel.pitch

        def filter_line(number: Value, index: Value, sums: list[Value]) -> list[Value]:
            """Emit the multiply-adds of a line of the filter."""
            met = panel.at(pixels, index)
            factors = panel.at("%v", f.mul(number, window.kernel[-1] * row))

            def offset(number: Value, at: Value, sums: list[Value]) -> list[Value]:
                """Emit the multiply-adds of an offset of the line."""
                start = panel.at(met, f.mul(at, window.pixel))
                step = window.stride[-1] * window.pixel
                places = [panel.at(start, i * step) for i in range(width)]
                body = partial(self._offset, panel.at(factors, f.mul(number, row)), places)
                there = line.has_pixel(first, at) if checked else None
                return f.when_for(there, body, [(panel.type, x) for x in sums])

            return line.offsets(offset, [(panel.type, x) for x in sums])

        found = line.lines(filter_line, sums)
        divisor = window.divisor[-1]
        panel.run_body(
            found, f.add("%top", f.add(f.mul(first, divisor), line.phase.first)), divisor
        )

    def _offset(self, start: Value, pixels: Sequence[Value], sums: list[Value]) -> list[Value]:
        """Emit the sums with an offset added, whose factors begin at `start`."""
        panel = self.panel
        for channel in range(self.window.channels):
            factors = panel.row(start, channel)
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


FilterRow = tuple[int, int, int]
"""A row of the sums of a line of the filter: the offset in it, the pixel that this meets at the
first place, and the channel."""


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
        phases = [phases[0] for phases in outer]
        self.line = GroupLine(f, self.element, window, phases, last[0])
        start = self.channels.of_panel("%image")
        self.lines = filter_lines(f, self.element, window, phases, self.line.numbers, start)

    def emit(self) -> None:
        """Emit the rows of each line of the filter, as many at a time as registers hold."""
        for line in self.lines:
            if line.there is None:
                self._filter_line(line)
            else:
                self.f.when(line.there, partial(self._filter_line, line))

    def _filter_line(self, line: FilterLine) -> None:
        met, channels = self.line.phase.met, range(self.window.channels)
        rows = [(offset, at, channel) for offset, at in met for channel in channels]
        done = 0
        for count, height in cuts(len(rows), self.most):
            for _ in range(count):
                self._rows(line, rows[done : done + height])
                done += height

    def _rows(self, line: FilterLine, rows: Sequence[FilterRow]) -> None:
        """Emit the sums of some rows, over all places in order."""
        f, window, vectors = self.f, self.window, self.vectors
        offset, _, channel = rows[0]
        number = line.number * window.kernel[-1] + offset
        width = vectors * self.v.lanes
        start = f.address("%sums", (number * window.channels + channel) * width, self.element)
        starts = range(0, len(rows) * width, self.v.lanes)
        held = [f.address(start, i, self.element) for i in starts]
        sums = [self.v.load(place, self.dtype) for place in held]
        met, stretches = stretches_of([window.places_met(-1, offset) for offset, *_ in rows])
        whole = Stretch(0, str(len(met)), tuple(range(len(rows))))
        for stretch in stretches or (whole,):
            numbers = [row * vectors + j for row in stretch.rows for j in range(vectors)]
            body = partial(self._place, line, [rows[row] for row in stretch.rows])
            first = met.start + stretch.first
            carried = [(self.type, sums[n]) for n in numbers]
            added = f.loop(first, first + int(stretch.places), 1, body, carried)
            for n, x in zip(numbers, added, strict=True):
                sums[n] = x
        for place, x in zip(held, sums, strict=True):
            self.v.store(x, place, self.dtype)

    def _place(
        self, line: FilterLine, rows: Sequence[FilterRow], place: Value, sums: list[Value]
    ) -> list[Value]:
        """Emit the sums of rows with a place added, at which all of them meet pixels."""
        f = self.f
        start = f.address("%v", f.mul(place, self.pitch), self.element)
        factors = [
            self.v.load(f.address(start, j * self.v.lanes, self.element), self.dtype, mask)
            for j, mask in enumerate(self.masks)
        ]
        found, before = [], iter(sums)
        for _, at, channel in rows:
            pixel = self.line.pixel(line.pixels, place, at)
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
