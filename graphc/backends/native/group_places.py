"""The code of a line of places of a grouped convolution, for a panel of columns."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.backends.native.group_channels import GroupChannels
from graphc.backends.native.group_lines import GroupLine, KernelLine, inside
from graphc.backends.native.ir import Value
from graphc.backends.native.window_places import Panel
from graphc.kernels.window import Phase, Window

LONGEST = 1000
"""About the most additions of a tile, whose places are computed together, without a loop."""


class GroupPlaces:
    """The code of the places [%from, %to) of a line, whose rows begin with `%top`.

    In each phase, places all of whose offsets meet pixels are computed in tiles of neighbours;
    those at the edges of the image, and left-over ones, one after the other.
    """

    def __init__(
        self, panel: Panel, window: Window, outer: Sequence[Phase], channels: GroupChannels
    ) -> None:
        """`outer` are the phases of the line."""
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
            borders = last < phase.places
            f.loop(tiled, end, 1, lambda i, _: self._tile(line, i, 1, borders))

    def _most(self, line: GroupLine) -> int:
        """Return the places of a tile: as many as registers allow, fewer if the code is long."""
        text = len(line.kernel_lines) * line.straight * self.window.channels * self.panel.vectors
        return max(min(self.panel.most, LONGEST // max(text, 1)), min(self.panel.most, 2))

    def _counted(self, phase: Phase, place: Value) -> Value:
        """Emit the number of places of a phase that come before a place."""
        f, apart = self.f, self.window.apart[-1]
        return f.quotient(f.add(place, apart - 1 - phase.first), apart)

    def _tile(self, line: GroupLine, first: Value, width: int, checked: bool) -> None:
        """Emit `width` places of a phase from number `first`; `checked` ones may miss pixels."""
        f, panel = self.f, self.panel
        sums: list[Value] = ["zeroinitializer"] * (width * panel.vectors)
        places = [f.add(first, i) for i in range(width)]
        for kernel_line in line.kernel_lines:
            start = kernel_line.number * self.window.kernel[-1]

            def offset(
                number: Value,
                at: Value,
                sums: list[Value],
                kernel_line: KernelLine = kernel_line,
                start: int = start,
            ) -> list[Value]:
                pixels = [line.pixel(kernel_line, place, at, checked=checked) for place in places]
                return self._offset(f.add(number, start), pixels, sums)

            sums = line.offsets(offset, sums, panel.type)
        apart = self.window.apart[-1]
        row = f.add(f.mul(first, apart), line.phase.first)
        panel.finish(sums, f.add("%top", row), apart)

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
