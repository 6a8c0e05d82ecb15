"""Sums over a line of places, for a panel of columns: the gradient of a filter in groups."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.backends.native.gemm_frame import Frame
from graphc.backends.native.group_channels import GroupChannels
from graphc.backends.native.group_lines import GroupLine, KernelLine, inside, line_arguments
from graphc.backends.native.ir import Function, Value
from graphc.backends.native.registers import element_type
from graphc.backends.native.vectors import Vectors
from graphc.backends.native.window_places import cuts
from graphc.kernels.window import Window

KernelRow = tuple[KernelLine, int, int, int]
"""A row of the sums: the line of the filter, the offset in it, the number of the pixel that it
meets at the first place, and the channel."""


class GroupSums:
    """The code that adds the products of a line to `%sums`: a row per offset and channel."""

    def __init__(self, f: Function, frame: Frame, window: Window, columns: int) -> None:
        tile, self.f, self.window = frame.tile, f, window
        self.dtype, self.pitch, self.element = tile.dtype, frame.pitch_b, element_type(tile.dtype)
        self.v, self.vectors = Vectors(frame.module, f, tile.lanes), tile.vectors_of(columns)
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
            for line in self.line.kernel_lines
            for offset, at in self.line.phase.met
            for channel in range(self.window.channels)
        ]
        done = 0
        for count, height in cuts(len(rows), self.most):
            for _ in range(count):
                self._rows(rows[done : done + height])
                done += height

    def _rows(self, rows: Sequence[KernelRow]) -> None:
        """Emit the sums of some rows, over all places in order."""
        f, window = self.f, self.window
        kernel_line, offset, _, channel = rows[0]
        number = kernel_line.number * window.kernel[-1] + offset
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
        rows: Sequence[KernelRow],
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
        rows: Sequence[KernelRow],
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
        for kernel_line, _, at, channel in rows:
            pixel = self.line.pixel(kernel_line, place, at, checked=checked)
            for x, factor in zip(self.channels.load(pixel, channel), factors, strict=True):
                found.append(self.v.fma(x, factor, next(before), self.dtype))
        return found


def emit_sums(frame: Frame, window: Window, columns: int) -> str:
    """Emit the function that adds a line to the sums of a panel unless the module has it.

    Return its name.  The panel has `columns` columns.
    """
    module, tile = frame.module, frame.tile
    sizes = tile.dtype, tile.lanes, columns, frame.scratch.columns, frame.pitch_b
    key = ("group sums", sizes, window)
    name = module.known(key)
    if name is None:
        name = module.name("sums", key)
        arguments = [
            *line_arguments(len(window.space)),
            ("ptr", "%v"),
            ("ptr", "%sums"),
            ("i64", "%column"),
        ]
        f = Function(name, arguments, attributes="#1")
        GroupSums(f, frame, window, columns).emit()
        f.ret()
        module.add(f)
    return name
