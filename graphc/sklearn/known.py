"""Arrays that come again in a search: equal ones are found, with what was made of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeGuard, TypeVar

import numpy as np

from graphc.ir.op import Array

SOME = 16
"""The number of rows that are compared first: they mostly differ in unequal arrays."""


T = TypeVar("T")


class Known(Generic[T]):
    """Results that were made of some arrays, to be found again for arrays of the same bits."""

    def __init__(self) -> None:
        self._known: dict[Hashable, list[tuple[Sequence[Array | None], T]]] = defaultdict(list)

    def __call__(self, key: Hashable, arrays: Sequence[Array | None], make: Callable[[], T]) -> T:
        """Return what was made of equal arrays for this key, or make it; the first must be one."""
        first = arrays[0]
        assert first is not None
        some = first[:: max(1, len(first) // SOME)]
        known = self._known[key, first.shape, first.dtype, some.tobytes()]
        for seen, made in known:
            if all(map(_equal, seen, arrays)):
                return made
        made = make()
        known.append((arrays, made))
        return made


def are_comparable(arrays: Sequence[Any]) -> TypeGuard[Sequence[Array | None]]:
    """Return whether all are arrays whose bits are their values, None besides the first."""
    rest = [array for array in arrays[1:] if array is not None]
    return all(type(a) is np.ndarray and a.ndim and a.dtype.kind != "O" for a in [arrays[0], *rest])


def _equal(one: Array | None, other: Array | None) -> bool:
    """Return whether arrays have the same bits."""
    if one is other:
        return True
    if one is None or other is None or (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    first, second = (np.ascontiguousarray(a).ravel().view(np.uint8) for a in (one, other))
    return np.array_equal(first, second)
