"""The tiles of a window over pixels that lie apart, as in the gradient of a strided convolution.

Places fall into phases, in each of which the same offsets meet pixels: no zero is multiplied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from itertools import product

from graphc.backends.native.ir import Value
from graphc.backends.native.window_places import UNROLL, Panel, cuts
from graphc.kernels.window import Phase, Window


class SpreadPlaces:
    """The code of the places [%low, %high) of an image: whole lines, single places around them."""

    def __init__(self, panel: Panel, window: Window) -> None:
        self.panel, self.f, self.window = panel, panel.f, window
        self.across = window.places[-1]
        self.pitches, self.borders = window.dense.pitches, window.dense.before
        *outer, self.last = [window.phases(axis) for axis in range(len(window.places))]
        self.outer = list(product(*outer))

    def emit(self) -> None:
        """Emit the code of all places."""
        f, across = self.f, self.across
        after = f.mul(f.quotient(f.add("%low", across - 1), across), across)
        first = f.smaller(after, "%high")
        last = f.larger(f.mul(f.quotient("%high", across), across), first)
        f.loop("%low", first, 1, lambda place, _: self._single(place))
        f.loop(first, last, across, lambda place, _: self._line(place))
        f.loop(last, "%high", 1, lambda place, _: self._single(place))

    def _line(self, place: Value) -> None:
        """Compute a line of places: in each phase neighbours are `apart`."""
        for outer in self.outer:
            self._when(self._numbers(place)[:-1], outer, partial(self._phases, place, outer))

    def _phases(self, place: Value, outer: Sequence[Phase]) -> None:
        for phase in self.last:
            column = 0
            for count, width in cuts(phase.places, self.panel.most):
                for _ in range(count):
                    self._tile(place, (*outer, phase), column, width)
                    column += width

    def _single(self, place: Value) -> None:
        """Compute one place, whatever phase it is in."""
        numbers = self._numbers(place)
        for phases in product(self.outer, self.last):
            outer, last = phases

            def one(outer: Sequence[Phase] = outer, last: Phase = last) -> None:
                f, apart = self.f, self.window.apart[-1]
                start = f.mul(f.quotient(place, self.across), self.across)
                self._tile(start, (*outer, last), f.quotient(numbers[-1], apart), 1)

            self._when(numbers, (*outer, last), one)

    def _when(
        self, numbers: Sequence[Value], phases: Sequence[Phase], body: Callable[[], None]
    ) -> None:
        """Emit the body under the condition that places are in these phases."""
        f, conditions = self.f, []
        for number, phase, apart in zip(numbers, phases, self.window.apart, strict=False):
            rest = f.remainder(number, apart)
            conditions.append(f.value(f"icmp eq i64 {rest}, {phase.first}"))
        if conditions:
            f.when(reduce(lambda a, b: f.value(f"and i1 {a}, {b}"), conditions), body)
        else:
            body()

    def _numbers(self, place: Value) -> list[Value]:
        """Return the number of a place in each dimension."""
        found: list[Value] = []
        for size in reversed(self.window.places[1:]):
            found.append(self.f.remainder(place, size))
            place = self.f.quotient(place, size)
        return [place, *reversed(found)]

    def _tile(self, line: Value, phases: Sequence[Phase], column: Value | int, width: int) -> None:
        """Compute `width` places of a line, from number `column` within the phase on."""
        f, panel, window = self.f, self.panel, self.window
        channels, apart, step = window.channels, window.apart[-1], self.pitches[-1]
        numbers = self._numbers(line)[:-1]
        around = [f.quotient(n, a) for n, a in zip(numbers, window.apart[:-1], strict=True)]
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
        first = f.add(f.mul(column, apart), phases[-1].first)
        panel.finish(sums, f.add("%top", f.add(line, first)), apart)

    def _met(self, phases: Sequence[Phase]) -> list[tuple[int, int]]:
        """Return the number and the pixel's position for each offset that meets a pixel."""
        found = []
        for met in product(*(phase.met for phase in phases)):
            number = pixel = 0
            for axis, (offset, at) in enumerate(met):
                number = number * self.window.kernel[axis] + offset
                pixel += (at + self.borders[axis]) * self.pitches[axis]
            found.append((number, pixel))
        return found
