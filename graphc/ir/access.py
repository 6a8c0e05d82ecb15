"""Access maps: which element of a value is read for an element of the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from graphc.ir.tensor_type import Dim, Shape, count


class Walk(NamedTuple):
    """The map of an index of the result to a position in one dimension of the value that is read.

    The position is (index * scale + shift) / apart, which must be one of `size` positions, `pitch`
    elements from each other; otherwise nothing is read.  A fraction is not a position either,
    unless `floor` says that it is rounded down.
    """

    pitch: int
    size: Dim
    scale: int = 1
    shift: int = 0
    apart: int = 1
    floor: bool = False

    def has(self, index: int) -> bool:
        """Return whether an index has a position."""
        at, rest = divmod(index * self.scale + self.shift, self.apart)
        assert isinstance(self.size, int), "the batch is walked straight"
        return 0 <= at < self.size and (self.floor or not rest)

    def is_inside(self, count: Dim) -> bool:
        """Return whether all of `count` indices have a position."""
        if not isinstance(count, int) or not isinstance(self.size, int):
            return (self.size, self.scale, self.shift, self.apart) == (count, 1, 0, 1)
        if self.apart > 1 and not self.floor:
            return False
        last = ((count - 1) * self.scale + self.shift) // self.apart
        return self.shift >= 0 and last < self.size


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """An access map: a `Walk` for each dimension of the result, and the value of missing elements.

    If it is `given`, the index of the first dimension is not that of the row, but a number that
    the row has; it is one of the positions.
    """

    walks: tuple[Walk, ...]
    fill: float = 0.0
    given: bool = False


def straight(shape: Sequence[Dim]) -> list[Walk]:
    """Return the `Walk`s that read a value of that shape in order, one for each dimension."""
    walks: list[Walk] = []
    pitch = 1
    for size in reversed(shape):
        walks.append(Walk(pitch, size))
        pitch *= size if isinstance(size, int) else 0
    return walks[::-1]


def merged_axes(shape: Shape, walks: Sequence[Walk]) -> tuple[Shape, list[Walk]]:
    """Merge neighbouring dimensions that are one in memory; the first stays by itself."""
    sizes, found = [shape[0]], [walks[0]]
    for size, walk in zip(shape[1:], walks[1:], strict=True):
        one = _one(found[-1], sizes[-1], walk, size) if len(found) > 1 else None
        if one is None:
            sizes.append(size)
            found.append(walk)
        else:
            sizes[-1], found[-1] = count((sizes[-1], size)), one
    if len(found) == 1:
        return (1, *sizes), [Walk(0, 1), *found]
    return tuple(sizes), found


def _one(outer: Walk, many: Dim, inner: Walk, size: Dim) -> Walk | None:
    """Return the one `Walk` that equals two dimensions of the result in memory, or None."""
    if size == 1 and inner.is_inside(1) and inner.shift == 0:
        return outer
    if many == 1 and outer.is_inside(1) and outer.shift == 0:
        return inner
    if not isinstance(size, int) or not isinstance(outer.size, int):
        return None
    dense = inner == Walk(inner.pitch, size) and outer.scale == outer.apart == 1
    if not dense or outer.pitch != inner.pitch * size:
        return None
    return Walk(inner.pitch, outer.size * size, 1, outer.shift * size)
