"""The threads of this process that help its callers.

They are Python's threads that stay inside one native call, without the interpreter's lock, and
start when a program first wants several.  No caller waits for one that has not begun, so it does
not matter when they arrive, nor if one is started twice.  After a fork the child starts its own.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
from collections.abc import Callable

import numpy as np

from graphc.backends.native import pool_ir
from graphc.backends.native.jit import load
from graphc.backends.native.target import host
from graphc.base import usable_cores
from graphc.base.scoped_lock import ScopedLock
from graphc.base.usable_cores import IdleCores
from graphc.ir.op import Array

PROBER = 0
"""The number of the thread that reports an idle core: the caller's, who needs no thread."""


class Pool:
    """Workers, a prober, and the memory that they and their callers share (see pool_ir)."""

    def __init__(self, room: int) -> None:
        """Load the code and allocate the memory for at most `room` threads with the caller."""
        target = host()
        symbols = ("worker", "prober", "send_home", "poke", "call")
        self._library = load(pool_ir.pool_ir(target), symbols, target)
        self.room = min(room, pool_ir.MOST_PARTS)
        self._memory = _zeroed(pool_ir.offset_of(self.room))
        self.address: int = self._memory.ctypes.data
        self.entry = self._library.address("call")
        """The address of the builtin that runs a program: see calls.py."""
        poke = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(self._library.address("poke"))
        self._wake_prober: Callable[[], None] = lambda: poke(self.address + pool_ir.ASKED)
        self._asked = self._memory[pool_ir.ASKED : pool_ir.ASKED + 4].view(np.int32)
        self._answered = self._memory[pool_ir.ANSWERED : pool_ir.ANSWERED + 4].view(np.int32)
        self._answer_time = self._memory[pool_ir.ANSWER_TIME :][:8].view(np.int64)
        self._starting = ScopedLock()
        self.forget()

    @property
    def workers(self) -> int:
        """The number of workers that are alive."""
        return sum(thread.is_alive() for tid, thread in self._threads.items() if tid != PROBER)

    def start(self, threads: int) -> None:
        """Start the workers for `threads` threads, as far as the system allows."""
        wanted = range(1, min(threads, self.room))
        all(self._has(tid, f"graphc-{tid}", self._work) for tid in wanted)

    def start_prober(self) -> bool:
        """Start the prober, and return whether there can be one: it runs on idle cores only."""
        return hasattr(os, "SCHED_IDLE") and self._has(PROBER, "graphc-prober", self._probe)

    def ask(self) -> None:
        """Ask the prober, which answers as soon as a core is idle."""
        self._asked += 1
        self._wake_prober()

    @property
    def answered(self) -> int | None:
        """The time of the answer to the last question, by `time.monotonic_ns`; None before it."""
        return int(self._answer_time[0]) if self._answered[0] == self._asked[0] else None

    def close(self) -> None:
        """End the threads: from now on programs run on their caller's thread alone."""
        self._closed = True
        self._function("send_home", ctypes.c_void_p, ctypes.c_int64)(self.address, self.room)
        for thread in list(self._threads.values()):
            if thread.is_alive():
                thread.join(timeout=1.0)

    def forget(self) -> None:
        """Reset the pool to no threads: a fork copies the memory, but not the threads."""
        self._memory[:] = 0
        self._threads: dict[int, threading.Thread] = {}
        self._closed = False
        self.idle = IdleCores(self)

    def _has(self, tid: int, name: str, work: Callable[[int], None]) -> bool:
        """Start a thread unless it is alive, and return whether it is.

        It is in the dictionary before it starts.  If an interrupt leaves open whether it did,
        another thread takes its number, which does no harm.
        """
        thread = self._threads.get(tid)
        if thread is not None and thread.is_alive():
            return True
        return not self._closed and self._starting(self._started, tid, name, work)

    def _started(self, tid: int, name: str, work: Callable[[int], None]) -> bool:
        thread = self._threads.get(tid)
        if thread is None or not thread.is_alive():  # and no other caller started it meanwhile
            thread = threading.Thread(target=work, args=(tid,), name=name, daemon=True)
            self._threads[tid] = thread
            try:
                thread.start()
            except RuntimeError:  # too many threads, or the interpreter is ending
                return False
        return True

    def _work(self, tid: int) -> None:
        """Run a worker until it ends; it keeps this object, and so the memory, alive."""
        self._function("worker", ctypes.c_void_p, ctypes.c_int64)(self.address, tid)

    def _probe(self, tid: int) -> None:
        """Run the prober until it ends; return at once if the system has no such threads."""
        try:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        except OSError:
            return
        self._function("prober", ctypes.c_void_p)(self.address)

    def _function(self, name: str, *arguments: type) -> Callable[..., None]:
        """Return a function of the library, which runs without the interpreter's lock."""
        return ctypes.CFUNCTYPE(None, *arguments)(self._library.address(name))


_pool: Pool | None = None
_making = ScopedLock()


def pool() -> Pool:
    """Return the pool of this process, made at the first call."""
    return _pool or _making(_made)


def _made() -> Pool:
    global _pool
    if _pool is None:
        made = Pool(max(os.cpu_count() or 1, usable_cores.cores()))
        atexit.register(made.close)
        _pool = made
    return _pool


def _zeroed(nbytes: int) -> Array:
    raw = np.zeros(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes]


def _after_fork() -> None:
    if _pool is not None:
        _pool.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
