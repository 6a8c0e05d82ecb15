"""A native program as a builtin of Python: the cheapest way to call it.

The builtin is machine code generated for this purpose (see call_ir): a call costs a fifth of one
through ctypes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from graphc.backends.native.builtin import builtin
from graphc.backends.native.call_ir import WORDS
from graphc.backends.native.jit import Library
from graphc.backends.native.pool import pool
from graphc.backends.native.thread_choice import FOREVER, Choice
from graphc.ir.op import Array


def bind(
    library: Library,
    symbol: str,
    table: Array,
    *,
    epochs: int = 1,
    threads: int = 1,
    long: bool = True,
) -> Callable[[int], None]:
    """Return `run(n)`: it runs the program `symbol` on `table`, an array of addresses, and n rows.

    It uses up to `threads` threads; results must not depend on their number.  A program that is
    not `long` runs on one thread and keeps the interpreter's lock: right up to some 20 us, the
    time it takes to hand the lock over.  The callable keeps alive all that it needs.
    """
    workers = pool()
    frame = (ctypes.c_uint64 * len(WORDS))()
    choice = Choice(frame, min(threads, workers.room), workers)
    review = choice.review if threads > 1 else None
    words: dict[str, int] = {
        "pool": workers.address,
        "function": library.address(symbol),
        "table": table.ctypes.data,
        "epochs": epochs,
        "long": long,
        "review": id(review),
        "none": id(None),
        "threads": 1,
        "left": 0 if review else FOREVER,
        "most": FOREVER,
    }
    for name, value in words.items():
        frame[WORDS.index(name)] = value
    keep: tuple[Any, ...] = (review, table, library, workers)
    return builtin("run", workers.entry, frame, keep)
