"""Arrays that are files: a program that reads all of one need not hold all of it."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from graphc.errors import FeedError
from graphc.loc import caller_loc
from graphc.op import Array

_HELD = 64 * 2**20
"""About how many bytes of the files a process holds before it gives them back."""

_AROUND = 64 * 1024
"""What systems map around the place of one read."""


class Mapped:
    """The memory-mapped arrays among some arrays.

    Pages that were read stay with the process as long as the system has room, so that it would
    seem to grow to the size of the file.  They are given back from time to time; the system
    goes on keeping them in its cache.  Only arrays opened for reading alone, where that cannot
    lose anything.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._files = list(_files(arrays.values()))
        self._row_bytes = _AROUND * len(self._files)
        self._held = 0

    def read(self, rows: int) -> None:
        """So many rows were read, from anywhere."""
        if self._files:
            self._held += rows * self._row_bytes
            if self._held > _HELD:
                self._held = 0
                for file in self._files:
                    file.madvise(mmap.MADV_DONTNEED)


def _files(arrays: Iterable[Array]) -> Iterable[mmap.mmap]:
    for array in arrays:
        if isinstance(array, np.memmap) and array.mode == "r" and hasattr(mmap, "MADV_DONTNEED"):
            file: Any = array._mmap  # type: ignore[attr-defined]
            if isinstance(file, mmap.mmap):
                yield file


def check_order(arrays: Mapping[str, Any]) -> None:
    """FeedError for a mapped array whose rows do not lie one after the other."""
    for name, array in arrays.items():
        if isinstance(array, np.memmap) and not array.flags.c_contiguous:
            raise FeedError(
                f"the memory-mapped array of input {name!r} does not have its rows one after the "
                "other, so that all of it would have to be read into memory",
                loc=caller_loc(),
                hint="save it in C order: np.save(path, np.ascontiguousarray(array))",
            )
