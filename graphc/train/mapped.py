"""Reads rows of arrays that are mapped from files, in any order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.base.errors import FeedError
from graphc.base.loc import caller_loc
from graphc.ir.op import Array
from graphc.runtime.pages import Pages

_AHEAD = 128 * 2**20
"""The bytes of rows, about, that are read ahead."""

_PIECE = 1024
"""The rows after which pages are given back.  Systems map some 64 KiB around each row that is read.
"""


class Ahead:
    """Rows of memory-mapped arrays for the next batches, read in the order of the file.

    Rows in a random order lie anywhere in a file, and each would cost a separate access.
    `arrays` have one entry of their `axes` for each row.
    """

    def __init__(self, arrays: Mapping[str, Array], axes: Mapping[str, int]) -> None:
        self._arrays, self._axes, self._pages = arrays, axes, Pages(arrays.values())
        count = max((a.shape[axes[name]] for name, a in arrays.items()), default=1)
        self.rows = max(1, _AHEAD * count // max(1, sum(a.nbytes for a in arrays.values())))
        """The number of rows that are read at a time."""
        self._memory: dict[str, Array] = {}
        self._places = np.empty(0, np.intp)

    def read(self, rows: NDArray[np.intp]) -> None:
        """Read these rows; `take` then gives them by their number in this array."""
        ascending = np.argsort(rows)
        self._places = np.empty(len(rows), np.intp)
        self._places[ascending] = np.arange(len(rows))
        for name, array in self._arrays.items():
            axis = self._axes[name]
            shape = (*array.shape[:axis], len(rows), *array.shape[axis + 1 :])
            if name not in self._memory or self._memory[name].shape != shape:
                self._memory[name] = np.empty(shape, array.dtype)
        for start in range(0, len(rows), _PIECE):
            piece = rows[ascending[start : start + _PIECE]]
            for name, array in self._arrays.items():
                axis = self._axes[name]
                part = (*[slice(None)] * axis, slice(start, start + len(piece)))
                self._memory[name][part] = np.take(array, piece, axis)
            self._pages.give_back()

    def take(self, name: str, start: int, stop: int, buffer: Array) -> None:
        """Copy rows that were read, by their numbers, into a buffer."""
        np.take(self._memory[name], self._places[start:stop], self._axes[name], buffer, "clip")


def check_order(arrays: Mapping[str, Any]) -> None:
    """Raise FeedError for a mapped array whose rows do not lie one after the other."""
    for name, array in arrays.items():
        if isinstance(array, np.memmap) and not array.flags.c_contiguous:
            raise FeedError(
                f"the memory-mapped array of input {name!r} does not have its rows one after the "
                "other, so that all of it would have to be read into memory",
                loc=caller_loc(),
                hint="save it in C order: np.save(path, np.ascontiguousarray(array))",
            )
