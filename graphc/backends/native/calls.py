"""A native program as a builtin of Python: the cheapest way in.

The builtin is machine code made for this (see call_ir), wrapped by the interpreter's
own PyCFunction_NewEx: a call costs a fifth of what one through ctypes does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from graphc.backends.native.jit import Library
from graphc.backends.native.pool import Pool, pool
from graphc.op import Array

_ONE_ARGUMENT = 0x0008  # METH_O


class _Method(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


def bind(
    library: Library, symbol: str, table: Array, *, threads: int = 1, long: bool = True
) -> Callable[[int], None]:
    """`run(n)`: the program `symbol` of a library on `table`, an array of addresses, and n rows.

    It runs on as many of `threads` threads as are free; results must not depend on that.  What
    is not `long` runs on one, and keeps the interpreter's lock: right up to some 20 us, the
    time it takes to hand the lock over.  The callable keeps alive what it needs.
    """
    workers = pool()
    method = _Method(b"run", workers.entry, _ONE_ARGUMENT, None)
    start = partial(workers.start, threads)
    frame = _frame(workers, library.address(symbol), table, threads, long, start)
    keep = (method, frame, start, table, library, workers)
    new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, *[ctypes.py_object] * 2)(
        ("PyCFunction_NewEx", ctypes.pythonapi)
    )
    # The third is the builtin's `__module__`, which may be any object: it lives as long.
    run = new(ctypes.addressof(method), ctypes.addressof(frame), keep)
    return cast("Callable[[int], None]", run)


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
