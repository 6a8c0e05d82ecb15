"""The pages of files that are mapped to memory, which are released as they are read."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from graphc.ir.op import Array

_KEPT = 16 * 2**20
"""The number of bytes read after which the pages are released to the system."""


class Pages:
    """The memory pages of read-only arrays that are mapped from files.

    Pages that were read count as memory of the process, which would seem to grow to the size of
    the file.  Releasing them loses nothing, since the system still caches the file.
    """

    def __init__(self, arrays: Iterable[Any]) -> None:
        known = hasattr(mmap, "MADV_DONTNEED")
        self._files = list(dict.fromkeys(_files(arrays))) if known else []
        self._read = 0

    def read(self, arrays: Iterable[Array]) -> None:
        """Record that these parts have been read and are not needed any more."""
        if self._files:
            self._read += sum(_extent(array) for array in arrays)
            if self._read >= _KEPT:
                self.give_back()

    def give_back(self) -> None:
        """Release all pages of the files to the system."""
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
                # Releasing the pages of a private, writable mapping would lose what was written to
                # it.
                if view.readonly:
                    yield array


def _extent(array: Array) -> int:
    """Return the number of bytes from the first entry to the last."""
    low, high = np.lib.array_utils.byte_bounds(array)
    return high - low
