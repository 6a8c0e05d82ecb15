"""The tiles of a window whose pixels are spread: only pixels are multiplied, and read in place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product

from graphc.backends.native.gemm_tile import UNROLL
from graphc.backends.native.ir import Value
from graphc.backends.native.window_lines import FilterLine, filter_lines, inside
from graphc.backends.native.window_places import PanelFunction, cuts, in_blocks, in_phases
from graphc.ir.forms import Phase, Window


class SpreadPlaces:
    """The emitter of an image whose pixels are spread: whole lines, single places around them."""

    def __init__(self, panel: PanelFunction, window: Window) -> None:
        self.panel, self.f, self.window = panel, panel.f, window
        self.across = window.places[-1]
        *outer, self.last = [window.phases(axis) for axis in range(len(window.places))]
        self.outer = list(product(*outer))

    def emit(self) -> None:
        """Emit the code of all places."""
        in_blocks(self.f, self.across, self._line, self._single)

    def _line(self, place: Value) -> None:
        """Emit a line of places, phase by phase."""
        for outer in self.outer:
            for _ in in_phases(self.f, self.window, self._numbers(place)[:-1], outer):
                self._phases(place, outer)

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
            for _ in in_phases(self.f, self.window, numbers, (*outer, last)):
                f, divisor = self.f, self.window.divisor[-1]
                start = f.mul(f.quotient(place, self.across), self.across)
                self._tile(start, (*outer, last), f.quotient(numbers[-1], divisor), 1)

    def _numbers(self, place: Value) -> list[Value]:
        """Return the number of a place in each dimension."""
        return self.f.indices(place, self.window.places[1:])

    def _tile(self, line: Value, phases: Sequence[Phase], column: Value | int, width: int) -> None:
        """Emit `width` places of a line, from number `column` within the phase on."""
        f, panel, window = self.f, self.panel, self.window
        numbers = self._numbers(line)[:-1]
        lines = filter_lines(f, panel.element, window, phases[:-1], numbers, "%s")
        sums: list[Value] = ["zeroinitializer"] * (width * panel.vectors)
        for one in lines:
            body = partial(self._of_line, one, phases[-1], column, width)
            sums = f.when_for(one.there, body, [(panel.type, x) for x in sums])
        first = f.add(f.mul(column, window.divisor[-1]), phases[-1].first)
        panel.run_body(sums, f.add("%top", f.add(line, first)), window.divisor[-1])

    def _of_line(
        self, line: FilterLine, phase: Phase, column: Value | int, width: int, sums: list[Value]
    ) -> list[Value]:
        """Emit the sums of places of a phase with the offsets of a line of the filter added."""
        f, panel, window = self.f, self.panel, self.window
        sums, size = [*sums], window.space[-1]
        for offset, at in phase.met:
            there, places = None, range(width)
            if isinstance(column, int):
                places = range(max(-at - column, 0), min(size - at - column, width))
            elif inside(window, -1, phase) != (0, phase.places):
                there = f.value(f"icmp ult i64 {f.add(column, at)}, {size}")
            if places:
                start = line.number * window.kernel[-1] + offset, f.add(column, at)
                body = partial(self._offset, line, start, places)
                some = slice(places.start * panel.vectors, places.stop * panel.vectors)
                sums[some] = f.when_for(there, body, [(panel.type, x) for x in sums[some]])
        return sums

    def _offset(
        self, line: FilterLine, start: tuple[int, Value], places: range, sums: list[Value]
    ) -> list[Value]:
        """Emit the sums of some places with an offset of the filter added.

        `start` are the number of the offset, and that of the pixel at the first place of the tile.
        """
        f, panel, window = self.f, self.panel, self.window
        number, pixel = start
        s = panel.at(line.pixels, f.mul(f.add(pixel, places.start), window.pixel))
        v = panel.at("%v", number * window.channels * panel.pitch)
        steps = panel.steps([j * window.pixel for j in range(len(places))])
        unroll = UNROLL if len(places) > 1 else 1
        return steps.run((s, v), str(panel.pitch), str(window.channels), unroll, start=sums)
