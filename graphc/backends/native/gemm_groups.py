"""Convolutions whose groups are narrower than a vector: a vector has channels of several groups.

The loops run over images, in each over lines of places (positions of the filter), in each over
panels of columns: so the pixels of a line stay in the cache, and a vector serves many places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

from graphc.backends.maths import apply
from graphc.backends.native.gemm_frame import Frame, Panel
from graphc.backends.native.gemm_scratch import WindowScratch
from graphc.backends.native.gemm_tile import PANEL_ARGUMENTS
from graphc.backends.native.gemm_windows import places_of
from graphc.backends.native.group_places import (
    GroupChannels,
    GroupPlaces,
    emit_sums,
    line_arguments,
)
from graphc.backends.native.ir import Function, Range, Value
from graphc.backends.native.loop_structure import clear
from graphc.backends.native.vectors import Vectors
from graphc.backends.native.window_places import PanelFunction, in_phases
from graphc.ir.forms import Phase, Window


class _GroupProduct:
    """The base of both products: scratch holds panels of factors or sums."""

    def __init__(self, frame: Frame, scratch: WindowScratch) -> None:
        self.frame, self.f, self.scratch, window = frame, frame.f, scratch, scratch.kernel.window
        self.window, self.across = window, window.places[-1]
        self._panels = frame.workspace

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product for ranges of rows and panels."""
        f = self.f
        for _ in f.only_if(f.less(*rows), f.less(*panels)):
            self._emit(rows, panels)

    def _emit(self, rows: Range, panels: Range) -> None:
        raise NotImplementedError

    def each_panel(self, panels: Range) -> Iterator[Panel]:
        """Emit loops around the code for panels; the last one has vectors as wide as all others."""
        for panel in self.frame.each_panel(panels):
            vectors = self.frame.tile.vectors_of(panel.counted)
            yield replace(panel, frame=self.frame, vectors=vectors)

    def of_panel(self, column: Value) -> Value:
        """Emit the address of the factors or sums of the panel that begins at a column."""
        return self.frame.address(self._panels, self.f.mul(column, self.window.depth))

    def image(self, number: Value) -> Value:
        """Emit the address of an image."""
        return self.frame.address(self.frame.a, self.f.mul(number, self.window.pixels))

    def numbers(self, line: Value) -> list[Value]:
        """Emit the index of a line in each dimension but the last."""
        sizes = self.window.places
        return self.f.indices(line, sizes[1:-1])[: len(sizes) - 1]


def _stored(v: Vectors, first: Value, units: int, window: Window) -> Value:
    """Emit the position of each column's first channel within an offset of the weight."""
    whole, unit = ["int64", "int64"], v.const(units, "int64")
    columns = v.numbers_from(first)
    group = apply(v, "floor_div", [columns, unit], whole, "int64")
    number = v.sub(columns, v.mul(group, unit, "int64"), "int64")
    far = v.mul(number, v.const(window.pixel, "int64"), "int64")
    return v.add(far, v.mul(group, v.const(window.channels, "int64"), "int64"), "int64")


class GroupWindows(_GroupProduct):
    """The product of grouped windows with a weight."""

    def _emit(self, rows: Range, panels: Range) -> None:
        f, count = self.f, self.window.count
        for panel in self.each_panel(panels):
            self._pack(panel)
        self.functions: dict[object, str] = {}
        # The lines of an image that have places of the range.
        for number in f.each(f.quotient(rows[0], count), f.ceiling(rows[1], count)):
            top, low, high = places_of(f, rows, number, count)
            s = self.image(number)
            for at in f.each(f.quotient(low, self.across), f.ceiling(high, self.across)):
                start = f.mul(at, self.across)
                first = f.larger(f.sub(low, start), 0)
                last = f.smaller(f.sub(high, start), self.across)
                places = f.add(top, start), first, last
                self._line(panels, s, self.numbers(at), places)

    def _pack(self, panel: Panel) -> None:
        """Emit the packing of a panel of the weight."""
        frame, target = panel.frame, self.of_panel(panel.column)
        if frame.kernel.trans_b:
            self._pack_reversed(panel)
        else:
            panel.pack(frame.address(frame.b, panel.column), target, self.window.depth)

    def _pack_reversed(self, panel: Panel) -> None:
        """Emit the packing of a panel of a weight whose offsets are taken in reverse.

        The weight is stored (offsets, columns of a group, groups * channels).
        """
        frame, columns, column = panel.frame, panel.counted, panel.column
        f, tile, window = self.f, frame.tile, self.window
        channels, target = window.channels, self.of_panel(column)
        v, offsets = Vectors(f, tile.lanes), window.depth // window.channels
        units = frame.scratch.columns // window.groups
        starts = range(0, columns, tile.lanes)
        places = [_stored(v, f.add(column, start), units, window) for start in starts]
        counts = [min(columns - start, tile.lanes) for start in starts]
        masks = [None if count == tile.lanes else v.mask_below(count) for count in counts]
        width = len(starts) * tile.lanes
        # The packing of a row: one channel at one offset.
        for number in f.each(0, window.depth):
            offset, channel = f.quotient(number, channels), f.remainder(number, channels)
            last = f.sub(offsets - 1, offset)
            source = frame.address(frame.b, f.add(f.mul(last, units * window.pixel), channel))
            to = frame.address(target, f.mul(number, width))
            for i, (place, mask) in enumerate(zip(places, masks, strict=True)):
                x = v.gather(source, place, tile.dtype, mask)
                v.store(x, frame.address(to, i * tile.lanes), tile.dtype)

    def _line(
        self, panels: Range, image: Value, numbers: Sequence[Value], places: Sequence[Value]
    ) -> None:
        """Emit a line for each combination of phases that it may be in."""
        outer = [self.window.phases(axis) for axis in range(len(numbers))]
        for phases in product(*outer):
            for _ in in_phases(self.f, self.window, numbers, phases):
                for panel in self.each_panel(panels):
                    key, column = (panel.vectors, panel.counted, phases), panel.column
                    if key not in self.functions:
                        self.functions[key] = self._emit_line(panel, phases)
                    line = image, *numbers, self.of_panel(column), *places
                    buffers = self.frame.arguments.values()
                    self.f.call(self.functions[key], *buffers, *line, *panel.last_arguments)

    def _emit_line(self, panel: Panel, phases: Sequence[Phase]) -> str:
        """Emit the function that computes places of a line for a panel; return its name."""
        frame, window = self.frame, self.window

        def emit(f: Function) -> None:
            function = PanelFunction(panel, f)
            units = frame.scratch.columns // window.groups
            channels = GroupChannels(function.v, function.dtype, window, units, panel.counted)
            GroupPlaces(function, window, phases, channels).emit()

        line = f"{line_arguments(len(window.space))}, ptr %v, i64 %top, i64 %from, i64 %to"
        return frame.module.function("line", f"{frame.typed}, {line}, {PANEL_ARGUMENTS}", emit)


class GroupWindowSums(_GroupProduct):
    """The product of grouped windows, transposed, with a cotangent: sums over all places.

    The sums stay in a thread's memory from line to line, and are added in the order of places.
    """

    def _emit(self, rows: Range, panels: Range) -> None:
        f, frame, window = self.f, self.frame, self.window
        for panel in self.each_panel(panels):
            self._clear_sums(panel)
        lines = window.count // self.across
        # All lines of an image.
        for number in f.each(0, f.quotient(frame.k, window.count)):
            s = self.image(number)
            for at in f.each(0, lines):
                place = f.mul(f.add(f.mul(number, lines), at), self.across)
                self._line(panels, s, self.numbers(at), place)
        for panel in self.each_panel(panels):
            self._run_body(rows, panel)

    def _clear_sums(self, panel: Panel) -> None:
        v = Vectors(self.f, self.frame.tile.lanes)
        size = self.window.depth * panel.vectors * v.lanes
        clear(v, self.of_panel(panel.column), size, self.frame.tile.dtype)

    def _line(self, panels: Range, image: Value, numbers: Sequence[Value], place: Value) -> None:
        frame = self.frame
        start = frame.address(frame.b, self.f.mul(place, frame.pitch_b))
        for panel in self.each_panel(panels):
            name, column = emit_sums(frame, self.window, panel.counted), panel.column
            operands = frame.address(start, column), self.of_panel(column), column
            self.f.call(name, image, *numbers, *operands)

    def _run_body(self, rows: Range, panel: Panel) -> None:
        width = panel.vectors * self.frame.tile.lanes
        sums = self.frame.address(self.of_panel(panel.column), self.f.mul(rows[0], width))
        panel.run_body(sums, rows[0], self.f.sub(rows[1], rows[0]))
