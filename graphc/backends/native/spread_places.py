"""The tiles of a window whose pixels are spread: zeros between them are not multiplied."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product

from graphc.backends.native.gemm_tile import UNROLL
from graphc.backends.native.ir import Value
from graphc.backends.native.window_places import PanelFunction, cuts, in_blocks, when_in_phases
from graphc.ir.forms import Phase, Window


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
