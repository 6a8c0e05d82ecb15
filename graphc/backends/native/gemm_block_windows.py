"""Convolutions of bfloat16 in the order of blocks: see `block_products`.

A row of windows is packed offset by offset of the filter, each in whole blocks of its channels, or
for the gradient of a filter in whole blocks of an image's places.  Images are read in place, or
from copies with zeros around.
"""

from __future__ import annotations

from graphc.backends.native.block_products import (
    PAIRS,
    TILE,
    copy_rows,
    emit_added,
    fill,
    transpose_rows,
)
from graphc.backends.native.gemm_blocks import PART, in_registers
from graphc.backends.native.gemm_frame import Frame, Panel
from graphc.backends.native.gemm_pairs import BITS, emit_pack
from graphc.backends.native.gemm_scratch import BlockPlacesScratch, BlockWindowScratch
from graphc.backends.native.gemm_windows import emit_image
from graphc.backends.native.ir import Function, Range, Value
from graphc.backends.native.loop_structure import clear
from graphc.backends.native.vectors import Vectors
from graphc.ir.bfloat16 import BLOCK
from graphc.ir.forms import Window
from graphc.kernels.kernel import CHUNK


class _Images:
    """The images that are read: in place, or as copies with zeros around."""

    def __init__(self, frame: Frame, window: Window, copies: Value) -> None:
        self.frame, self.f, self.window, self.copies = frame, frame.f, window, copies

    def clear(self, elements: int) -> None:
        """Emit zeros in the place of the copies; those around pixels stay."""
        if not self.window.is_direct:
            clear(Vectors(self.f, BLOCK), self.copies, elements, BITS)

    def read(self, first: Value, end: Value | int) -> Value:
        """Emit the copies of some images, and the address of the first one."""
        f, frame, window = self.f, self.frame, self.window
        if window.is_direct:
            return f.address(frame.a, f.mul(first, window.pixels), "i16")
        copy = emit_image(frame.module, BLOCK, BITS, window)

        def image(number: Value, _: list[Value]) -> None:
            source = f.address(frame.a, f.mul(number, window.pixels), "i16")
            held = f.mul(f.sub(number, first), window.held_elements)
            f.call(copy, source, f.address(self.copies, held, "i16"))

        f.loop(first, end, 1, image)
        return self.copies


def _place(f: Function, window: Window, number: Value) -> Value:
    """Emit the first element that a place of some images reads."""
    image, *at = f.indices(number, window.places)
    start = f.mul(image, window.held_elements)
    for index, step in zip(at, window.steps, strict=True):
        start = f.add(start, f.mul(index, step))
    return start


class BlockWindows:
    """A convolution or its input gradient: all of b is packed, and of a some rows at a time."""

    def __init__(self, frame: Frame, scratch: BlockWindowScratch) -> None:
        f = frame.f
        self.frame, self.f, self.scratch, self.window = frame, f, scratch, scratch.kernel.window
        self.b = frame.workspace
        self.a = frame.address(self.b, scratch.packed_b)
        self.sums = frame.address(self.a, scratch.rows_block)
        copies = frame.address(self.sums, scratch.panel_sums)
        self.images = _Images(frame, self.window, copies)

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product for ranges of rows and panels."""
        in_registers(
            self.frame, lambda: self.f.when(self.f.less(*rows), lambda: self._all(rows, panels))
        )

    def _all(self, rows: Range, panels: Range) -> None:
        f, scratch, count = self.f, self.scratch, self.window.count
        self.frame.each_panel(panels, self._pack_b)
        self.images.clear(scratch.copied)

        def some(first: Value, _: list[Value]) -> None:
            """Emit the places of some images that are among the rows."""
            end = f.smaller(f.add(first, scratch.images), f.ceiling(rows[1], count))
            start, top = self.images.read(first, end), f.mul(first, count)
            low, high = f.larger(rows[0], top), f.smaller(rows[1], f.mul(end, count))

            def block(row: Value, _: list[Value]) -> None:
                last = f.smaller(f.add(row, scratch.rows), high)
                self._pack_a(start, f.sub(row, top), f.sub(last, top))
                self.frame.each_panel(panels, lambda panel: self._multiply(panel, row, last))

            f.loop(low, high, scratch.rows, block)

        f.loop(f.quotient(rows[0], count), f.ceiling(rows[1], count), scratch.images, some)

    def _multiply(self, panel: Panel, row: Value, last: Value) -> None:
        """Emit the products of some rows and a panel, and the body, part by part."""
        f, frame, blocks = self.f, panel.frame, self.scratch.whole // BLOCK
        added = emit_added(frame.module, frame.tile, panel.vectors)

        def part(i: Value, _: list[Value]) -> None:
            rows = f.smaller(f.sub(last, i), PART)
            a = frame.address(self.a, f.mul(f.sub(i, row), blocks * PAIRS))
            f.call(added, a, rows, self._packed(panel), blocks, self.sums, 0)
            panel.run_body(self.sums, i, rows)

        f.loop(row, last, PART, part)

    def _packed(self, panel: Panel) -> Value:
        """Emit the address of a packed panel."""
        return self.frame.address(self.b, self.f.mul(panel.column, self.scratch.whole // 2))

    def _pack_a(self, start: Value, first: Value, end: Value) -> None:
        """Emit the packing of some places of images; a block of channels is a tile."""
        f, frame, window = self.f, self.frame, self.window
        tiles = self.scratch.whole // BLOCK

        def emit(f: Function) -> None:
            last = f.sub("%rows", 1)
            numbers = [f.add("%first", f.smaller(i, last)) for i in range(CHUNK)]
            rows = [f.address("%from", _place(f, window, number), "i16") for number in numbers]
            each = -(-window.channels // BLOCK)

            def offset(number: Value, _: list[Value]) -> None:
                moved = _offset(f, window, number)
                places = [f.address(row, moved, "i16") for row in rows]
                target = f.address("%to", f.mul(number, each * TILE), "i32")
                copy_rows(f, places, target, window.channels)

            f.loop(0, window.offsets, 1, offset)

        pack = frame.module.function(
            "pack", "ptr %from, i64 %first, i64 %rows, ptr %to", emit, ("pack windows", window)
        )

        def chunk(i: Value, _: list[Value]) -> None:
            target = frame.address(self.a, f.mul(f.sub(i, first), tiles * PAIRS))
            f.call(pack, start, i, f.sub(end, i), target)

        f.loop(first, end, CHUNK, chunk)

    def _pack_b(self, panel: Panel) -> None:
        """Emit the packing of a panel of b, offset by offset; those of a gradient are reversed."""
        f, frame, window, transposed = self.f, panel.frame, self.window, self.frame.kernel.trans_b
        channels, columns = window.channels, self.scratch.columns
        pitch = channels if transposed else frame.pitch_b
        pack = emit_pack(
            frame.module, frame.tile, panel.vectors, transposed, 1, masked=panel.masked
        )
        width, each = panel.vectors * frame.tile.lanes, -(-channels // BLOCK) * PAIRS

        def offset(number: Value, _: list[Value]) -> None:
            first = f.add(f.mul(f.mul(number, channels), pitch), panel.column)
            if transposed:
                back = f.sub(window.offsets - 1, number)
                first = f.mul(f.add(f.mul(back, columns), panel.column), channels)
            target = frame.address(self._packed(panel), f.mul(number, each * width))
            f.call(pack, frame.factor(frame.b, first), pitch, panel.columns, target, channels)
            fill(panel, target, channels)

        f.loop(0, window.offsets, 1, offset)


def _offset(f: Function, window: Window, number: Value) -> Value:
    """Emit the elements from a place's first one to that of an offset of the filter."""
    moved: Value = "0"
    at = f.indices(number, window.kernel[1:])
    for index, dilation, pitch in zip(at, window.dilation, window.pitches, strict=True):
        moved = f.add(moved, f.mul(index, dilation * pitch))
    return moved


class BlockPlaces:
    """The gradient of a filter: sums over the places of images, block by block of each image.

    A unit is 16 rows of the result, or fewer at the end of an offset's channels.
    """

    def __init__(self, frame: Frame, scratch: BlockPlacesScratch) -> None:
        f = frame.f
        self.frame, self.f, self.scratch, self.window = frame, f, scratch, scratch.kernel.window
        self.b = frame.workspace
        self.a = frame.address(self.b, scratch.panel_block)
        self.sums = frame.address(self.a, scratch.rows_block)
        self.starts = frame.address(self.sums, scratch.panel_sums * scratch.together)
        copies = frame.address(self.starts, 2 * scratch.depth)
        self.images = _Images(frame, self.window, copies)
        self.of_offset = -(-self.window.channels // CHUNK)

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product for ranges of rows and panels."""
        in_registers(
            self.frame, lambda: self.f.when(self.f.less(*rows), lambda: self._all(rows, panels))
        )

    def _all(self, rows: Range, panels: Range) -> None:
        f, scratch = self.f, self.scratch
        first, end = self._unit(rows[0]), f.add(self._unit(f.sub(rows[1], 1)), 1)
        self.images.clear(scratch.copied)

        def units(start: Value, _: list[Value]) -> None:
            stop = f.smaller(f.add(start, scratch.units), end)

            def some(panel: Value, _: list[Value]) -> None:
                last = f.smaller(f.add(panel, scratch.together), panels[1])
                self._group(rows, (start, stop), (panel, last))

            f.loop(*panels, scratch.together, some)

        f.loop(first, end, scratch.units, units)

    def _unit(self, row: Value) -> Value:
        """Emit the number of the unit of a row."""
        f, channels = self.f, self.window.channels
        inside = f.quotient(f.remainder(row, channels), CHUNK)
        return f.add(f.mul(f.quotient(row, channels), self.of_offset), inside)

    def _group(self, rows: Range, units: Range, panels: Range) -> None:
        """Emit the sums of some units and panels over all images, and the body."""
        f, frame, scratch, window = self.f, self.frame, self.scratch, self.window
        self.first = panels[0]

        def image(number: Value, _: list[Value]) -> None:
            start = self.images.read(number, f.add(number, 1))

            def block(p: Value, _: list[Value]) -> None:
                k, row = (
                    f.smaller(f.sub(window.count, p), scratch.depth),
                    f.mul(number, window.count),
                )
                self._pack_starts(start, p, k)
                self._pack_units(units, k)
                frame.each_panel(
                    panels, lambda panel: self._multiply(panel, units, f.add(row, p), k)
                )

            f.loop(0, window.count, scratch.depth, block)

        f.loop(0, f.size(scratch.kernel.images), 1, image)
        frame.each_panel(panels, lambda panel: self._bodies(panel, rows, units))

    def _pack_starts(self, start: Value, p: Value, k: Value) -> None:
        """Emit the addresses of what the first offset of the filter reads at some places."""
        f = self.f

        def place(i: Value, _: list[Value]) -> None:
            at = f.address(start, _place(f, self.window, f.add(p, i)), "i16")
            f.do(f"store ptr {at}, ptr {f.address(self.starts, i, 'i64')}")

        f.loop(0, k, 1, place)

    def _pack_units(self, units: Range, k: Value) -> None:
        """Emit the packing of the rows of some units, at k places."""
        f, frame, window, of_offset = self.f, self.frame, self.window, self.of_offset

        def emit(f: Function) -> None:
            v, last = Vectors(f, CHUNK), f.sub("%k", 1)
            full = window.channels % CHUNK == 0
            mask = None if full else v.mask_below("%rows")

            def block(p: Value, whole: bool) -> None:
                rows, masks = [], []
                for i in range(BLOCK):
                    number = f.add(p, i)
                    at = number if whole else f.smaller(number, last)
                    start = f.value(f"load ptr, ptr {f.address('%starts', at, 'i64')}")
                    rows.append(f.address(start, "%offset", "i16"))
                    there = f.select(f.less(number, "%k"), "i64", "%rows", 0)
                    masks.append(mask if whole else v.mask_below(there))
                target = f.address("%to", f.mul(f.quotient(p, 2), CHUNK), "i32")
                transpose_rows(v, rows, masks, target)

            whole = f.round_down("%k", BLOCK)
            f.loop(0, whole, BLOCK, lambda p, _: block(p, True))
            f.when(f.less(whole, "%k"), lambda: block(whole, False))

        arguments = "ptr %starts, i64 %offset, i64 %rows, i64 %k, ptr %to"
        key = ("pack places", window.channels % CHUNK == 0)
        pack, blocks = frame.module.function("pack", arguments, emit, key), f.ceiling(k, BLOCK)

        def unit(number: Value, _: list[Value]) -> None:
            channel = f.mul(f.remainder(number, of_offset), CHUNK)
            moved = f.add(_offset(f, window, f.quotient(number, of_offset)), channel)
            rows = f.smaller(f.sub(window.channels, channel), CHUNK)
            target = frame.address(self.a, f.mul(f.mul(f.sub(number, units[0]), blocks), TILE))
            f.call(pack, self.starts, moved, rows, k, target)

        f.loop(*units, 1, unit)

    def _multiply(self, panel: Panel, units: Range, p: Value, k: Value) -> None:
        """Emit the products of k places, from row p of b on, added to the sums of a panel."""
        f, frame = self.f, panel.frame
        pitch, place = f.size(frame.rows_b), f.mul(p, f.size(frame.rows_b))
        pack = emit_pack(frame.module, frame.tile, panel.vectors, False, 1, masked=panel.masked)
        f.call(
            pack, frame.factor(frame.b, f.add(place, panel.column)), pitch, panel.columns, self.b, k
        )
        fill(panel, self.b, k)
        added = emit_added(frame.module, frame.tile, panel.vectors)
        count = f.mul(f.sub(units[1], units[0]), CHUNK)
        f.call(added, self.a, count, self.b, f.ceiling(k, BLOCK), self._sums(panel), p)

    def _sums(self, panel: Panel) -> Value:
        """Emit the address of the sums of a panel."""
        f, frame = self.f, self.frame
        number = f.sub(f.quotient(panel.column, frame.tile.width), self.first)
        return frame.address(self.sums, f.mul(number, self.scratch.panel_sums))

    def _bodies(self, panel: Panel, rows: Range, units: Range) -> None:
        """Emit the body of the rows of some units that are this thread's."""
        f, frame, window = self.f, panel.frame, self.window
        sums, width = self._sums(panel), panel.vectors * panel.frame.tile.lanes

        def unit(number: Value, _: list[Value]) -> None:
            offset, channel = (
                f.quotient(number, self.of_offset),
                f.remainder(number, self.of_offset),
            )
            top = f.add(f.mul(offset, window.channels), f.mul(channel, CHUNK))
            end = f.smaller(f.add(top, CHUNK), f.mul(f.add(offset, 1), window.channels))
            low, high = f.larger(top, rows[0]), f.smaller(end, rows[1])
            row = f.add(f.mul(f.sub(number, units[0]), CHUNK), f.sub(low, top))
            panel.run_body(frame.address(sums, f.mul(row, width)), low, f.sub(high, low))

        f.loop(*units, 1, unit)
