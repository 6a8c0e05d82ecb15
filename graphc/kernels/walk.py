"""Elements of a value at other places than those of the result: what moves and pools read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from graphc.tensor_type import Dim


class Walk(NamedTuple):
    """Where an index of the result is along one dimension of the value that is read.

    It is at (index * scale + shift) / apart, which must be one of `size` positions, `pitch`
    elements from each other; where it is none, nothing is read.  A fraction is none either,
    unless `floor` says that it is rounded down.
    """

    pitch: int
    size: Dim
    scale: int = 1
    shift: int = 0
    apart: int = 1
    floor: bool = False

    def has(self, index: int) -> bool:
        """Whether an index has a position."""
        at, rest = divmod(index * self.scale + self.shift, self.apart)
        assert isinstance(self.size, int), "the batch is walked straight"
        return 0 <= at < self.size and (self.floor or not rest)

    def is_inside(self, count: Dim) -> bool:
        """Whether all of `count` indices have a position."""
        if not isinstance(count, int) or not isinstance(self.size, int):
            return (self.size, self.scale, self.shift, self.apart) == (count, 1, 0, 1)
        if self.apart > 1 and not self.floor:
            return False
        last = ((count - 1) * self.scale + self.shift) // self.apart
        return self.shift >= 0 and last < self.size


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A walk for each dimension of the result, and what stands for what is not there.

    If it is `given`, the index of the first dimension is not that of the row, but a number that
    the row has; it is one of the positions.
    """

    walks: tuple[Walk, ...]
    fill: float = 0.0
    given: bool = False


def straight(shape: Sequence[Dim]) -> list[Walk]:
    """A walk through a value of that shape, each dimension by itself."""
    walks: list[Walk] = []
    pitch = 1
    for size in reversed(shape):
        walks.append(Walk(pitch, size))
        pitch *= size if isinstance(size, int) else 0
    return walks[::-1]
