"""Moves the parameters of one state towards another's by native code, if both have one layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from graphc.compiler.memory import align
from graphc.ir.op import Array
from graphc.runtime.state import State


class Mixing:
    """The parameters of two states that have the same names."""

    __slots__ = ("_first", "_mix", "_own", "_second")

    def __init__(self, own: State, other: State, mix: Callable[[float], None]) -> None:
        self._own, self._mix = own.lock, mix
        # One order of locks for all, lest two that move towards each other wait for ever.
        locks = own.lock, other.lock
        self._first, self._second = locks if id(own) < id(other) else locks[::-1]

    def run(self, share: float) -> None:
        """Move the parameters by this share, while no run uses either state."""
        self._first(self._alone, share)

    def _alone(self, share: float) -> None:
        self._own.writing = True
        self._second(self._mix, share)


def mixing(own: State, other: State, names: Sequence[str]) -> Mixing | None:
    """Return the mixing of parameters of equal shape and dtype in both; None if any differ."""
    from graphc.backends.native.mixing import bind_mixing

    ours, theirs = ([state.arrays[name] for name in names] for state in (own, other))
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype or a.dtype.kind != "f":
            return None
    parts = [(_span(ours[i:j]), _span(theirs[i:j])) for i, j in _neighbours(ours, theirs)]
    return Mixing(own, other, bind_mixing(parts))


def _neighbours(ours: Sequence[Array], theirs: Sequence[Array]) -> Iterator[tuple[int, int]]:
    """Yield the runs of arrays that are adjacent, but for padding, in both memories."""
    start = 0
    for i in range(1, len(ours) + 1):
        if i == len(ours) or not (_follows(ours, i) and _follows(theirs, i)):
            yield start, i
            start = i


def _follows(arrays: Sequence[Array], i: int) -> bool:
    before, array = arrays[i - 1], arrays[i]
    near = array.ctypes.data == before.ctypes.data + align(before.nbytes)
    return near and array.base is before.base and array.dtype == before.dtype


def _span(arrays: Sequence[Array]) -> Array:
    """Return one vector over adjacent arrays, padding included."""
    base, first, last = arrays[0].base, arrays[0], arrays[-1]
    assert base is not None
    start = first.ctypes.data - base.ctypes.data
    end = last.ctypes.data + last.nbytes - base.ctypes.data
    return base[start:end].view(first.dtype)
