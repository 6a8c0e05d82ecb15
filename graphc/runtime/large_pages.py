"""Large pages for large memory, for fewer misses when addresses are looked up."""

from __future__ import annotations

import ctypes
import mmap
import sys

from graphc.ir.op import Array

LARGE = 2 << 20
_ADVICE = 14  # MADV_HUGEPAGE


def advise_large_pages(block: Array) -> None:
    """Ask Linux for pages of 2 MB under a contiguous block of at least that size.

    It is advice: whatever the system answers, the memory is as good as before.
    """
    if sys.platform != "linux" or block.nbytes < LARGE:
        return
    first = -(-block.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (block.ctypes.data + block.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    madvise(first, end - first, _ADVICE)
