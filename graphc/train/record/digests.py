"""Digests of a state: of a few hundred bytes each step, and of all its bytes now and then."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b, sha256

import numpy as np
from numpy.typing import NDArray

from graphc.ir.op import Array
from graphc.runtime.executor import Executor

WHOLE = 1000
"""The number of steps between two digests of the whole state."""

_ARRAYS = 16
_WORDS = 4


def state_arrays(ex: Executor) -> dict[str, Array]:
    """Return the arrays themselves of all state that the plan needs."""
    return {name: ex.state.arrays[name] for name in ex.plan.state_nodes}


class StateDigest:
    """The digest of an executor's state after each step.

    After most steps it is that of four words of each of 16 arrays, or of as many as there are:
    a step that went differently shows in its loss or in nearly all numbers of the state.  After
    every WHOLE steps it is that of all bytes, which finds what was missed.
    """

    def __init__(self, ex: Executor) -> None:
        self.parts = [array.reshape(-1).view(np.uint8) for array in state_arrays(ex).values()]
        """The arrays as bytes."""
        words = [part[: part.size // 8 * 8].view(np.uint64) for part in self.parts]
        some = _evenly([array for array in words if array.size], _ARRAYS)
        self._pieces = _in_one_block(ex.state.blocks, some) or [(a, _places(a.size)) for a in some]
        self._chosen = np.empty(sum(len(places) for _, places in self._pieces), np.uint64)

    def after(self, step: int) -> int:
        """Return the digest after the step of this number."""
        if step % WHOLE == 0:
            return self.whole()
        start = 0
        for words, places in self._pieces:
            # Any mode but "raise" writes straight into `out`; the places are all in range.
            words.take(places, out=self._chosen[start : start + len(places)], mode="clip")
            start += len(places)
        return int.from_bytes(blake2b(self._chosen.data, digest_size=8).digest(), "little")

    def whole(self) -> int:
        """Return the digest of all bytes."""
        return digest(self.parts)


def digest(parts: Sequence[Array | bytes]) -> int:
    """Return 64 bits that depend on all bytes of the parts."""
    found = sha256()
    for part in parts:
        found.update(part.data if isinstance(part, np.ndarray) else part)
    return int.from_bytes(found.digest()[:8], "little")


def _evenly(arrays: Sequence[Array], count: int) -> list[Array]:
    """Return at most `count` of the arrays, spread evenly from the first to the last."""
    places = np.linspace(0, len(arrays) - 1, min(count, len(arrays)))
    return [arrays[int(place)] for place in places]


def _places(size: int) -> NDArray[np.intp]:
    """Return indices spread evenly over an array of `size` words."""
    return np.linspace(0, size - 1, min(_WORDS, size)).astype(np.intp)


def _in_one_block(
    blocks: Sequence[Array], some: Sequence[Array]
) -> list[tuple[Array, NDArray[np.intp]]]:
    """Return the places of all arrays in the block that holds them; none if several blocks do."""
    for block in blocks:
        first, end = _address(block), _address(block) + block.nbytes
        if some and all(first <= _address(array) < end for array in some):
            starts = [(_address(array) - first) // 8 for array in some]
            places = [
                start + _places(array.size) for start, array in zip(starts, some, strict=True)
            ]
            return [(block.view(np.uint64), np.concatenate(places))]
    return []


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])
