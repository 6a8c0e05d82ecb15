"""The memory that this process may have, and the error for what cannot fit in it.

Systems promise more memory than they have, and end processes that use it: so it is counted first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from graphc.base.errors import OutOfMemoryError, counted
from graphc.base.usable_cores import LIMITS, limiting_groups


def check_memory(count: int, word: str, each: int, hint: str) -> None:
    """Raise OutOfMemoryError if so many things, of `each` bytes at least, cannot fit."""
    most = most_bytes()
    if count * each > most:
        raise OutOfMemoryError(
            f"{counted(count, word)} would take {counted(count * each, 'byte')}; this process can "
            f"have {counted(most, 'byte')}, enough for {most // each:,}",
            hint=hint,
        )


def most_bytes() -> int:
    """Return the bytes that the machine has, or what control groups and limits leave of them."""
    return min(_limits())


def _limits() -> Iterator[int]:
    yield sys.maxsize
    words = [line.split() for line in _lines(Path("/proc/meminfo"))]
    known = [int(line[1]) for line in words if line and line[0] in ("MemTotal:", "SwapTotal:")]
    if known:  # Linux; in kilobytes
        yield 1024 * sum(known)
    elif hasattr(os, "sysconf"):
        yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder, version in limiting_groups("memory"):
        for line in _lines(folder / LIMITS["memory"][version][0]):
            yield int(line) if line.isdigit() else sys.maxsize  # "max"
    with suppress(ImportError):  # not on Windows or in a browser
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        yield soft if soft != resource.RLIM_INFINITY else sys.maxsize


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # another system, or no limit
        return []
