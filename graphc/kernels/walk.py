"""The access maps of gathers: the elements that moves and pools read for one of the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from graphc.ir.tensor_type import Dim


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
