"""The weight of a grouped convolution as panels: a row for each offset and channel of a group."""

from __future__ import annotations

from graphc.backends.native.gemm_frame import Frame
from graphc.backends.native.ir import Value
from graphc.backends.native.packing import emit_copy
from graphc.backends.native.vectors import Vectors
from graphc.kernels.window import Window


def pack_factors(frame: Frame, window: Window, columns: int, column: Value, target: Value) -> None:
    """Emit the copy of the panel of `columns` columns that begins at `column` to `target`."""
    tile = frame.tile
    if frame.kernel.trans_b:
        _turn(frame, window, columns, column, target)
        return
    vectors = tile.vectors_of(columns)
    name = emit_copy(frame.module, tile, vectors, columns % tile.lanes != 0)
    frame.f.do(
        f"call void @{name}(ptr {frame.address(frame.b, column)}, i64 {frame.pitch_b}, "
        f"i64 {columns}, ptr {target}, i64 {window.depth})"
    )


def _turn(frame: Frame, window: Window, columns: int, column: Value, target: Value) -> None:
    """Emit the copy of a panel of a weight whose offsets are taken in reverse.

    The weight is stored (offsets, columns of a group, groups * channels).
    """
    f, tile, channels = frame.f, frame.tile, window.channels
    v, offsets = Vectors(frame.module, f, tile.lanes), window.depth // window.channels
    units = frame.scratch.columns // window.groups
    starts = range(0, columns, tile.lanes)
    places = [_stored(v, f.add(column, start), units, window) for start in starts]
    counts = [min(columns - start, tile.lanes) for start in starts]
    masks = [None if count == tile.lanes else v.mask_below(count) for count in counts]
    width = len(starts) * tile.lanes

    def row(number: Value, _: list[Value]) -> None:
        offset, channel = f.quotient(number, channels), f.remainder(number, channels)
        last = f.sub(offsets - 1, offset)
        source = frame.address(frame.b, f.add(f.mul(last, units * window.pixel), channel))
        to = frame.address(target, f.mul(number, width))
        for i, (place, mask) in enumerate(zip(places, masks, strict=True)):
            x = v.gather(source, place, tile.dtype, mask)
            v.store(x, frame.address(to, i * tile.lanes), tile.dtype)

    f.loop(0, window.depth, 1, row)


def _stored(v: Vectors, first: Value, units: int, window: Window) -> Value:
    """Emit the position in an offset of the first channel of each column.

    It depends on the column's number in its group, and on its group.
    """
    whole, unit = ["int64", "int64"], v.const(units, "int64")
    columns = v.add(v.splat(first, "int64"), v.lane_numbers("int64"), "int64")
    group = v.apply("floor_div", [columns, unit], whole, "int64")
    number = v.sub(columns, v.mul(group, unit, "int64"), "int64")
    far = v.mul(number, v.const(window.pixel, "int64"), "int64")
    return v.add(far, v.mul(group, v.const(window.channels, "int64"), "int64"), "int64")
