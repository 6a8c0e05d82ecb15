"""A native program as a builtin of Python: the cheapest way in.

The builtin is machine code made for this (see call_ir): a call costs a fifth of what one
through ctypes does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

from graphc.backends.native.builtin import builtin
from graphc.backends.native.jit import Library
from graphc.backends.native.pool import Pool, pool
from graphc.op import Array


def bind(
    library: Library, symbol: str, table: Array, *, threads: int = 1, long: bool = True
) -> Callable[[int], None]:
    """`run(n)`: the program `symbol` of a library on `table`, an array of addresses, and n rows.

    It runs on as many of `threads` threads as are free; results must not depend on that.  What
    is not `long` runs on one, and keeps the interpreter's lock: right up to some 20 us, the
    time it takes to hand the lock over.  The callable keeps alive what it needs.
    """
    workers = pool()
    start = partial(workers.start, threads)
    frame = _frame(workers, library.address(symbol), table, threads, long, start)
    return builtin("run", workers.entry, frame, (start, table, library, workers))


def _frame(
    workers: Pool, function: int, table: Array, threads: int, long: bool, start: Any
) -> ctypes.Array[ctypes.c_uint64]:
    """What the native side reads of a call; call_ir tells its order."""
    return (ctypes.c_uint64 * 7)(
        workers.address,
        function,
        table.ctypes.data,
        threads,
        long,
        id(start),
        id(None),
    )
