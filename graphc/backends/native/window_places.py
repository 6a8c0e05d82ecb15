"""The tiles of a window's product: neighbouring places of an image times a panel of columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product

from graphc.backends.native.elements import Epilogue
from graphc.backends.native.gemm_frame import Panel
from graphc.backends.native.gemm_tile import UNROLL, Steps
from graphc.backends.native.ir import Function, Value
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

    def row(self, number: Value) -> list[Value]:
        """Load a row of the panel."""
        start = self.at("%v", self.f.mul(number, self.pitch))
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


class Places:
    """The emitter of the tiles of an image, which are places side by side."""

    def __init__(self, panel: PanelFunction, window: Window) -> None:
        self.panel, self.f, self.window = panel, panel.f, window
        self.across, self.step = window.places[-1], window.steps[-1]
        self.lines = _lines(window, panel.most)

    def emit(self) -> None:
        """Emit whole blocks of places, and single places where a thread's rows split a block."""
        f, block = self.f, self.lines * self.across
        if self.window.count % block == 0 == CHUNK % block:
            f.loop("%low", "%high", block, lambda start, _: self._block(start))
            return
        in_blocks(f, block, self._block, self._single)

    def _block(self, start: Value) -> None:
        s = self.panel.at("%s", self._line(self.f.quotient(start, self.across)))
        row = self.f.add("%top", start)
        if self.lines > 1:
            self._tile(s, row, self.lines, self.across)
            return
        column = 0
        for count, width in cuts(self.across, self.panel.most):
            self._tiles(s, row, column, count, width)
            column += count * width

    def _tiles(self, s: Value, row: Value, column: int, count: int, width: int) -> None:
        """Emit `count` neighbouring tiles."""
        f = self.f

        def tile(i: Value, _: list[Value]) -> None:
            first = f.add(i, column)
            self._tile(self.panel.at(s, f.mul(first, self.step)), f.add(row, first), 1, width)

        f.loop(0, count * width, width, tile)

    def _single(self, place: Value) -> None:
        f = self.f
        line, column = f.quotient(place, self.across), f.remainder(place, self.across)
        offset = f.add(self._line(line), f.mul(column, self.step))
        self._tile(self.panel.at("%s", offset), f.add("%top", place), 1, 1)

    def _line(self, number: Value) -> Value:
        """Emit the offset at which a line of places begins."""
        return _offset_of(self.f, number, self.window.places[:-1], self.window.steps[:-1])

    def _tile(self, s: Value, row: Value, lines: int, width: int) -> None:
        """Emit a tile of `lines` lines of `width` places."""
        above = self.window.steps[-2] if lines > 1 else 0
        offsets = [i * above + j * self.step for i in range(lines) for j in range(width)]
        panel, count = self.panel, len(offsets) * self.panel.vectors
        steps = panel.steps(offsets)
        unroll = self.window.run if count * self.window.run <= STRAIGHT else UNROLL
        carried = ["%v", *["zeroinitializer"] * count]
        sums = self._runs(steps, unroll if lines * width > 1 else 1, 0, s, carried)[1:]
        panel.run_body(sums, row)

    def _runs(
        self, steps: Steps, unroll: int, axis: int, s: Value, carried: list[Value]
    ) -> list[Value]:
        """Emit the runs of all offsets from an axis on; return the next row of b, and the sums."""
        f, run, panel = self.f, self.window.run, self.panel
        if axis == len(self.window.reach):
            v, *sums = carried
            sums = steps.run((s, v), str(panel.pitch), str(run), unroll, start=sums)
            return [panel.at(v, run * panel.pitch), *sums]
        count, step = self.window.reach[axis]
        if count == 1:
            return self._runs(steps, unroll, axis + 1, s, carried)

        def offset(i: Value, carried: list[Value]) -> list[Value]:
            return self._runs(steps, unroll, axis + 1, panel.at(s, f.mul(i, step)), carried)

        types = ["ptr", *[panel.type] * (len(carried) - 1)]
        return f.loop(0, count, 1, offset, list(zip(types, carried, strict=True)))


def in_blocks(
    f: Function, size: int, block: Callable[[Value], None], single: Callable[[Value], None]
) -> None:
    """Emit whole blocks of the places [%low, %high), and single places around them."""
    first = f.smaller(f.mul(f.ceiling("%low", size), size), "%high")
    last = f.larger(f.mul(f.quotient("%high", size), size), first)
    f.loop("%low", first, 1, lambda place, _: single(place))
    f.loop(first, last, size, lambda place, _: block(place))
    f.loop(last, "%high", 1, lambda place, _: single(place))


def when_in_phases(
    f: Function,
    window: Window,
    numbers: Sequence[Value],
    phases: Sequence[Phase],
    body: Callable[[], None],
) -> None:
    """Emit the body, to run if a place with these indices is in these phases."""
    conditions = []
    for number, phase, divisor in zip(numbers, phases, window.divisor, strict=False):
        if divisor > 1:
            rest = f.remainder(number, divisor)
            conditions.append(f.value(f"icmp eq i64 {rest}, {phase.first}"))
    f.when_all(conditions, body)


def _offset_of(f: Function, number: Value, sizes: Sequence[int], steps: Sequence[int]) -> Value:
    """Emit the offset in elements of a place, by its number in C order over `sizes`."""
    found: Value = "0"
    for axis in reversed(range(len(sizes))):
        at = number
        if axis:
            at, number = f.remainder(number, sizes[axis]), f.quotient(number, sizes[axis])
        found = f.add(found, f.mul(at, steps[axis]))
    return found


def _lines(window: Window, most: int) -> int:
    """Return the number of lines of places in a tile: the largest that divides all and fits."""
    if len(window.places) == 1:
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


class SpreadPlaces:
    """The emitter of an image whose pixels are spread: whole lines, single places around them."""

    def __init__(self, panel: PanelFunction, window: Window) -> None:
        self.panel, self.f, self.window = panel, panel.f, window
        self.across = window.places[-1]
        self.pitches, self.before = window.dense.pitches, window.dense.before
        *outer, self.last = [window.phases(axis) for axis in range(len(window.places))]
        self.outer = list(product(*outer))

    def emit(self) -> None:
        """Emit the code of all places."""
        in_blocks(self.f, self.across, self._line, self._single)

    def _line(self, place: Value) -> None:
        """Emit a line of places, phase by phase."""
        for outer in self.outer:
            body = partial(self._phases, place, outer)
            when_in_phases(self.f, self.window, self._numbers(place)[:-1], outer, body)

    def _phases(self, place: Value, outer: Sequence[Phase]) -> None:
        for phase in self.last:
            column = 0
            for count, width in cuts(phase.places, self.panel.most):
                for _ in range(count):
                    self._tile(place, (*outer, phase), column, width)
                    column += width

    def _single(self, place: Value) -> None:
        """Emit one place, in any phase."""
        numbers = self._numbers(place)
        for phases in product(self.outer, self.last):
            outer, last = phases

            def one(outer: Sequence[Phase] = outer, last: Phase = last) -> None:
                f, divisor = self.f, self.window.divisor[-1]
                start = f.mul(f.quotient(place, self.across), self.across)
                self._tile(start, (*outer, last), f.quotient(numbers[-1], divisor), 1)

            when_in_phases(self.f, self.window, numbers, (*outer, last), one)

    def _numbers(self, place: Value) -> list[Value]:
        """Return the number of a place in each dimension."""
        return self.f.indices(place, self.window.places[1:])

    def _tile(self, line: Value, phases: Sequence[Phase], column: Value | int, width: int) -> None:
        """Emit `width` places of a line, from number `column` within the phase on."""
        f, panel, window = self.f, self.panel, self.window
        channels, divisor, step = window.channels, window.divisor[-1], self.pitches[-1]
        numbers = self._numbers(line)[:-1]
        around = [f.quotient(n, a) for n, a in zip(numbers, window.divisor[:-1], strict=True)]
        start: Value = f.mul(column, step)
        for number, pitch in zip(around, self.pitches[:-1], strict=True):
            start = f.add(start, f.mul(number, pitch))
        s = panel.at("%s", start)
        steps = panel.steps([j * step for j in range(width)])
        sums: list[Value] = ["zeroinitializer"] * (width * panel.vectors)
        for offset, pixel in self._met(phases):
            places = panel.at(s, pixel), panel.at("%v", offset * channels * panel.pitch)
            unroll = UNROLL if width > 1 else 1
            sums = steps.run(places, str(panel.pitch), str(channels), unroll, start=sums)
        first = f.add(f.mul(column, divisor), phases[-1].first)
        panel.run_body(sums, f.add("%top", f.add(line, first)), divisor)

    def _met(self, phases: Sequence[Phase]) -> list[tuple[int, int]]:
        """Return the number and the pixel's position for each offset that meets a pixel."""
        found = []
        for met in product(*(phase.met for phase in phases)):
            number = pixel = 0
            for axis, (offset, at) in enumerate(met):
                number = number * self.window.kernel[axis] + offset
                pixel += (at + self.before[axis]) * self.pitches[axis]
            found.append((number, pixel))
        return found
