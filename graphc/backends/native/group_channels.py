"""The channels of a pixel as vectors, in which each column of a panel has those of its group."""

from __future__ import annotations

from graphc.backends.native.ir import Value
from graphc.backends.native.registers import element_type
from graphc.backends.native.vectors import Vectors
from graphc.kernels.window import Window


class GroupChannels:
    """The channels for the panel that begins at `%column` and has `columns` columns.

    If each group has one channel and one column, channels are neighbours, as columns are.
    If groups end with vectors, lanes of one load are repeated.  Others are gathered.
    """

    def __init__(self, v: Vectors, dtype: str, window: Window, units: int, columns: int) -> None:
        """`units` are the columns of a group."""
        self.v, self.f, self.dtype, self.element = v, v.function, dtype, element_type(dtype)
        self.channels, self.units, self.lanes = window.channels, units, v.lanes
        starts = range(0, columns, self.lanes)
        self.counts = [min(columns - start, self.lanes) for start in starts]
        self.in_line = self.channels <= units and self.lanes % units == 0
        if self.in_line:
            first = self.f.quotient("%column", units)
            self.start = self.f.mul(first, self.channels)
            return
        self.offsets = [self._offsets(self.f.add("%column", start)) for start in starts]

    def load(self, pixel: Value, channel: int) -> list[Value]:
        """Emit, for each column, this channel of its group in the pixel at address `pixel`."""
        if not self.in_line:
            place = self.f.address(pixel, channel, self.element)
            masks = map(self._mask, self.counts)
            return [
                self.v.gather(place, offsets, self.dtype, mask)
                for offsets, mask in zip(self.offsets, masks, strict=True)
            ]
        return [self._repeated(pixel, number, channel) for number in range(len(self.counts))]

    def _repeated(self, pixel: Value, number: int, channel: int) -> Value:
        """Emit a load that reads each channel once, and a shuffle that repeats it per column."""
        each, units = self.channels, self.units
        start = self.f.add(self.start, number * self.lanes // units * each)
        mask = self._mask(self.counts[number] // units * each)
        x = self.v.load(self.f.address(pixel, start, self.element), self.dtype, mask)
        if units == 1:
            return x
        lanes = [lane // units * each + channel for lane in range(self.lanes)]
        return self.v.shuffle(x, "poison", lanes, self.dtype)

    def _mask(self, count: int) -> Value | None:
        return None if count == self.lanes else self.v.mask_below(count)

    def _offsets(self, first: Value) -> Value:
        """Emit the offset of the first channel of each column's group in the pixel."""
        v = self.v
        columns = v.add(v.splat(first, "int64"), v.lane_numbers("int64"), "int64")
        whole = ["int64", "int64"]
        group = v.apply("floor_div", [columns, v.const(self.units, "int64")], whole, "int64")
        return v.mul(group, v.const(self.channels, "int64"), "int64")
