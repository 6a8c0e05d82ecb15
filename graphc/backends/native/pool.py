"""The worker threads of this process.

They are Python's threads that stay inside one native call, without the interpreter's lock, and
start when a program first wants several threads.  After a fork the child starts its own.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
from collections.abc import Callable

import numpy as np

from graphc.backends.native import pool_ir, usable_cores
from graphc.backends.native.jit import load
from graphc.backends.native.target import host
from graphc.op import Array


class Pool:
    """Workers, and the memory that they and their callers share (see pool_ir)."""

    def __init__(self, most: int) -> None:
        """`most` threads at a time, the caller among them."""
        target = host()
        symbols = ("worker", "release", "call")
        self._library = load(pool_ir.pool_ir(target), symbols, target)
        self._most = most
        self._memory = _zeroed(pool_ir.bytes_of_pool(most - 1))
        self.address: int = self._memory.ctypes.data
        self.entry = self._library.address("call")
        """The address of the builtin that runs a program: see calls.py."""
        self._threads: list[threading.Thread] = []
        self.forget()

    @property
    def workers(self) -> int:
        """How many there are."""
        return int(self._integer(pool_ir.WORKERS)[0])

    def start(self, threads: int) -> None:
        """Have the workers for so many threads, as far as the system allows."""
        with self._lock:
            limit = self._integer(pool_ir.MOST)
            while self.workers + 1 < min(threads, limit[0]):
                if not self._started(self.workers + 1):
                    limit[0] = self.workers + 1

    def close(self) -> None:
        """Send the workers home: from now on programs run on their caller's thread alone."""
        with self._lock:
            self._integer(pool_ir.MOST)[0] = 1
            if self._threads:
                self._function("release", ctypes.c_void_p)(self.address)
            for thread in self._threads:
                thread.join(timeout=1.0)
            self._threads = []

    def forget(self) -> None:
        """Begin anew, without workers: a fork copies the memory, but not the threads."""
        self._memory[:] = 0
        self._integer(pool_ir.MOST)[0] = self._most
        self._lock = threading.Lock()
        self._threads = []

    def _started(self, tid: int) -> bool:
        """Start a worker, and wait until it is inside native code.

        It needs the interpreter's lock to get there, which a program's caller may not let go.
        """
        thread = threading.Thread(target=self._work, args=(tid,), name=f"graphc-{tid}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # too many threads, or the interpreter is ending
            return False
        ready = self._memory[pool_ir.offset_of(tid) + pool_ir.READY :]
        while not ready[0]:
            time.sleep(0)
        self._threads.append(thread)
        self._integer(pool_ir.WORKERS)[0] = tid
        return True

    def _work(self, tid: int) -> None:
        """A worker's whole life.  It holds on to this object, and so to the memory."""
        self._function("worker", ctypes.c_void_p, ctypes.c_int64)(self.address, tid)

    def _function(self, name: str, *arguments: type) -> Callable[..., None]:
        """A function of the library, which runs without the interpreter's lock."""
        return ctypes.CFUNCTYPE(None, *arguments)(self._library.address(name))

    def _integer(self, offset: int) -> Array:
        return self._memory[offset : offset + 8].view(np.int64)


_pool: Pool | None = None
_lock = threading.Lock()


def pool() -> Pool:
    """The one of this process."""
    global _pool
    with _lock:
        if _pool is None:
            _pool = Pool(usable_cores.cores())
            atexit.register(_pool.close)
        return _pool


def _zeroed(nbytes: int) -> Array:
    raw = np.zeros(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes]


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    if _pool is not None:
        _pool.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
