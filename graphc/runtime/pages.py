"""Pages of arrays that are files, given back so that reading a file does not hold all of it."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from graphc.ir.op import Array

_KEPT = 16 * 2**20
"""Bytes of pages, about, that stay with the process."""


class Pages:
    """The pages of arrays that are mapped from files for reading alone.

    Pages that were read stay with the process as long as the system has room, so that it would
    seem to grow to the size of the file.  So they are given back, which cannot lose anything; the
    system still keeps them in its cache.
    """

    def __init__(self, arrays: Iterable[Any]) -> None:
        known = hasattr(mmap, "MADV_DONTNEED")
        self._files = list(dict.fromkeys(_files(arrays))) if known else []
        self._read = 0

    def read(self, arrays: Iterable[Array]) -> None:
        """Note that these parts have been read, and are not needed any more."""
        if self._files:
            self._read += sum(_span(array) for array in arrays)
            if self._read >= _KEPT:
                self.give_back()

    def give_back(self) -> None:
        """Give all pages of the files back to the system."""
        self._read = 0
        for file in self._files:
            file.madvise(mmap.MADV_DONTNEED)


def _files(arrays: Iterable[Any]) -> Iterator[mmap.mmap]:
    """Yield the files below arrays and views of arrays."""
    for array in arrays:
        while isinstance(array, np.ndarray):
            array = array.base
        if isinstance(array, mmap.mmap):
            with memoryview(array) as view:
                if view.readonly:
                    yield array


def _span(array: Array) -> int:
    """Return the number of bytes from the first entry to the last."""
    low, high = np.lib.array_utils.byte_bounds(array)
    return high - low
