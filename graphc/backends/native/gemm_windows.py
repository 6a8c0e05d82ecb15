"""Convolutions as matrix products: the matrix of the window over images is never stored.

The rows of a register tile are neighbouring places (positions of the filter), so that their pixels
are at fixed distances; the columns are runs of neighbours in memory.  Images are read in place.
"""

from __future__ import annotations

from graphc.backends.native.gemm_frame import Frame, Panel, emit_transpose
from graphc.backends.native.gemm_scratch import WindowScratch
from graphc.backends.native.gemm_tile import PANEL_ARGUMENTS
from graphc.backends.native.ir import Function, Module, Range, Value
from graphc.backends.native.loop_structure import copy
from graphc.backends.native.spread_places import SpreadPlaces
from graphc.backends.native.vectors import Vectors, element_type
from graphc.backends.native.window_places import PanelFunction, Places
from graphc.ir.forms import Window


class _Copy:
    """The emitter of a copy: a loop for each dimension, the last one over neighbours in memory."""

    def __init__(self, v: Vectors, dtype: str, window: Window) -> None:
        self.v, self.f, self.dtype, self.window = v, v.function, dtype, window
        self.element = element_type(dtype)

    def emit(self) -> None:
        """Emit the copy of the whole image."""
        self._axis(0, "%from", "%to", self.window.pixels)

    def _axis(self, axis: int, source: Value, target: Value, pixels: int) -> None:
        """Emit the copy of one dimension; one step of the dimension before is `pixels` elements."""
        window, f = self.window, self.f
        first, end = _met(window, axis)
        inner = pixels // window.space[axis]
        step = window.divisor[axis] * window.pitches[axis]
        start = (first * window.divisor[axis] + window.before[axis]) * window.pitches[axis]
        source = f.address(source, first * inner, self.element)
        target = f.address(target, start, self.element)
        if axis == len(window.space) - 1 and window.divisor[axis] == window.groups == 1:
            copy(self.v, source, target, (end - first) * inner, self.dtype)
            return
        # The copy of one position, or of the dimensions inside it.
        for i in f.each(0, end - first):
            place = f.address(source, f.mul(i, inner), self.element)
            to = f.address(target, f.mul(i, step), self.element)
            if axis == len(window.space) - 1:
                copy(self.v, place, to, window.channels, self.dtype)
            else:
                self._axis(axis + 1, place, to, inner)


def _met(window: Window, axis: int) -> tuple[int, int]:
    """Return the first and end pixel of a dimension that have a position in the copy."""
    before, divisor, size = window.before[axis], window.divisor[axis], window.held[axis]
    first = max(-(before // divisor), 0)
    end = min((size - 1 - before) // divisor + 1, window.space[axis])
    return first, max(end, first)


class WindowProduct:
    """The base of both products: an image at a time is read in place."""

    def __init__(self, frame: Frame, scratch: WindowScratch) -> None:
        self.frame, self.f, self.packed = frame, frame.f, frame.workspace
        self.scratch, self.window = scratch, scratch.kernel.window

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product for ranges of rows and panels."""
        for _ in self.f.only_if(self.f.less(*rows)):
            for panel in self.frame.each_panel(panels):
                self.panel(rows, panel)

    def panel(self, rows: Range, panel: Panel) -> None:
        """Emit a panel of the product."""
        raise NotImplementedError

    def first_channel(self, column: Value) -> Value:
        """Emit the first channel that a column of the result reads."""
        if self.window.groups == 1:
            return "0"
        group = self.f.quotient(column, self.scratch.part)
        return self.f.mul(group, self.window.channels)

    def image(self, number: Value, column: Value) -> Value:
        """Emit the address of an image, for a panel that begins at a column."""
        f, frame = self.f, self.frame
        first = f.add(f.mul(number, self.window.pixels), self.first_channel(column))
        return frame.address(frame.a, first)


def emit_image(module: Module, lanes: int, dtype: str, window: Window) -> str:
    """Return the function that copies the pixels of an image to their positions among zeros."""
    pixel = window.channels, window.groups
    place = window.space, pixel, window.held, window.before, window.divisor
    return module.function(
        "image",
        "ptr %from, ptr %to",
        lambda f: _Copy(Vectors(f, lanes), dtype, window).emit(),
        ("image", dtype, lanes, place),
    )


class Windows(WindowProduct):
    """A convolution or its input gradient: loops over panels, images, and tiles of places."""

    def panel(self, rows: Range, panel: Panel) -> None:
        """Emit the packing of a panel of b, and the loop over images."""
        f, frame, count = self.f, panel.frame, self.window.count
        if not frame.packed:
            self._pack(panel)
        name = _emit_places(panel, self.window)
        packed = panel.stored() if frame.packed else self.packed
        for number in f.each(f.quotient(rows[0], count), f.ceiling(rows[1], count)):
            where = places_of(f, rows, number, count)
            at = self.image(number, panel.column), packed
            f.call(name, *frame.arguments.values(), *at, *where, *panel.last_arguments)

    def _pack(self, panel: Panel) -> None:
        """Emit the packing of all rows of a panel of b."""
        frame = panel.frame
        if frame.kernel.trans_b:
            self._pack_reversed(panel)
        else:
            panel.pack(frame.address(frame.b, panel.column), self.packed, self.window.depth)

    def _pack_reversed(self, panel: Panel) -> None:
        """Emit the packing of a weight's offsets in reverse, each transposed.

        An offset is stored (columns, channels); a group has all columns and some channels.  Rows
        that a transposition writes in excess are overwritten by the next one.
        """
        frame, column = panel.frame, panel.column
        f, tile = self.f, frame.tile
        channels, width = self.window.channels, panel.vectors * tile.lanes
        name = emit_transpose(frame.module, tile, panel.vectors)
        offsets = self.window.depth // channels
        pixel, units = self.window.pixel, self.scratch.part
        size = units * pixel
        first = f.mul(f.sub(column, f.mul(f.quotient(column, units), units)), pixel)
        first = f.add(first, self.first_channel(column))
        start = frame.address(frame.b, f.add(first, (offsets - 1) * size))
        for number in f.each(0, offsets):
            source = frame.address(start, f.mul(number, -size))
            target = f.mul(number, channels * width)
            to = frame.address(self.packed, target)
            f.call(name, source, pixel, panel.columns, to, channels)


def places_of(f: Function, rows: Range, image: Value, count: int) -> tuple[Value, Value, Value]:
    """Emit the row of an image's first of `count` places, and which places are among `rows`."""
    top = f.mul(image, count)
    low = f.larger(f.sub(rows[0], top), 0)
    return top, low, f.smaller(f.sub(rows[1], top), count)


def _emit_places(panel: Panel, window: Window) -> str:
    """Emit the function that computes places [%low, %high) of an image for a panel.

    The arguments after the buffers: the image, the panel of b, the row of the image's first place.
    """

    def emit(f: Function) -> None:
        function = PanelFunction(panel, f)
        if window.is_spread:
            SpreadPlaces(function, window).emit()
        else:
            Places(function, window).emit()

    return panel.frame.module.function(
        "places",
        f"{panel.frame.typed}, ptr %s, ptr %v, i64 %top, i64 %low, i64 %high, {PANEL_ARGUMENTS}",
        emit,
    )
