"""Access maps: which element of a value is read for an element of the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from graphc.ir.tensor_type import Dim, Shape, count


class AxisMap(NamedTuple):
    """An axis map: from an index of the result to a position in one dimension of the source.

    The position is (index * scale + shift) / divisor, which must be one of `size`
    positions, `pitch` elements from each other; otherwise nothing is read.  A fraction is not a
    position either, unless `floor` says that it is rounded down.
    """

    pitch: int
    size: Dim
    scale: int = 1
    shift: int = 0
    divisor: int = 1
    floor: bool = False

    def has(self, index: int) -> bool:
        """Return whether an index has a position."""
        at, rest = divmod(index * self.scale + self.shift, self.divisor)
        assert isinstance(self.size, int), "the batch is read in order"
        return 0 <= at < self.size and (self.floor or not rest)

    def is_inside(self, count: Dim) -> bool:
        """Return whether all of `count` indices have a position."""
        if not isinstance(count, int) or not isinstance(self.size, int):
            return (self.size, self.scale, self.shift, self.divisor) == (count, 1, 0, 1)
        if self.divisor > 1 and not self.floor:
            return False
        ends = self.shift, (count - 1) * self.scale + self.shift
        return min(ends) >= 0 and max(ends) // self.divisor < self.size


@dataclass(frozen=True, slots=True)
class AccessMap:
    """An `AxisMap` for each dimension of the result, and the value of missing elements.

    If `given`, the index of the first dimension is not that of the row, but a number stored for
    the row, which always is a position.
    """

    axes: tuple[AxisMap, ...]
    fill: float = 0.0
    given: bool = False


def dense_maps(shape: Sequence[Dim]) -> list[AxisMap]:
    """Return the `AxisMap`s that read a value of that shape in order, one for each dimension."""
    found: list[AxisMap] = []
    pitch = 1
    for size in reversed(shape):
        found.append(AxisMap(pitch, size))
        # Only the first dimension may be the batch, and no pitch is counted beyond it.
        pitch *= size if isinstance(size, int) else 0
    return found[::-1]


def merged_axes(shape: Shape, maps: Sequence[AxisMap]) -> tuple[Shape, list[AxisMap]]:
    """Merge adjacent dimensions that are contiguous in memory; the first stays separate."""
    sizes, found = [shape[0]], [maps[0]]
    for size, axis in zip(shape[1:], maps[1:], strict=True):
        one = _one(found[-1], sizes[-1], axis, size) if len(found) > 1 else None
        if one is None:
            sizes.append(size)
            found.append(axis)
        else:
            sizes[-1], found[-1] = count((sizes[-1], size)), one
    if len(found) == 1:
        return (1, *sizes), [AxisMap(0, 1), *found]
    return tuple(sizes), found


def _one(outer: AxisMap, many: Dim, inner: AxisMap, size: Dim) -> AxisMap | None:
    """Return the one `AxisMap` that equals two dimensions of the result in memory, or None."""
    if size == 1 and inner.is_inside(1) and inner.shift == 0:
        return outer
    if many == 1 and outer.is_inside(1) and outer.shift == 0:
        return inner
    if not isinstance(size, int) or not isinstance(outer.size, int):
        return None
    dense = inner == AxisMap(inner.pitch, size) and outer.scale == outer.divisor == 1
    if not dense or outer.pitch != inner.pitch * size:
        return None
    return AxisMap(inner.pitch, outer.size * size, 1, outer.shift * size)
