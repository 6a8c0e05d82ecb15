"""Memory with machine code.  It is written first and executed then: it is never both."""

from __future__ import annotations

import ctypes
import mmap
import os
from functools import lru_cache
from typing import Any


def mapped(content: bytes, executable: int) -> mmap.mmap:
    """Return memory with this content; its first bytes, whole pages, are executed, the others read.

    Nobody can write to it.  Raise OSError if the system refuses.
    """
    kind, writable = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE
    memory = mmap.mmap(-1, max(len(content), mmap.PAGESIZE), kind, writable)
    memory.write(content)
    start = address_of(memory)
    _protect(start, executable, mmap.PROT_READ | mmap.PROT_EXEC)
    _protect(start + executable, len(memory) - executable, mmap.PROT_READ)
    return memory


def address_of(memory: mmap.mmap) -> int:
    """Return where memory starts."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _protect(start: int, size: int, access: int) -> None:
    if process().mprotect(ctypes.c_void_p(start), ctypes.c_size_t(size), access):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


@lru_cache(maxsize=1)
def process() -> Any:
    """Return the functions of this process."""
    return ctypes.CDLL(None, use_errno=True)
