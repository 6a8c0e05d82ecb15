"""The worker threads of this process, the choice of their number, and the calls of programs.

Workers are Python threads that stay inside one native call, without the interpreter's lock, and
start when a program first wants several.  No caller waits for one that has not begun, so it does
not matter when they arrive, or if one is started twice.  After a fork the child starts new ones.

A program is called as a builtin made of machine code (see call_ir): a call costs a fifth of one
through ctypes.  The number of threads is chosen at every call, by measured times; results do not
depend on it.  A run is shared if that was faster for this program, and cores are idle; a short run
after a pause is not, since its workers sleep.  A run that is estimated to be long is shared at
once.  The other choice is tried so rarely that it costs less than a hundredth.  A shared run that
is late continues on its caller's thread alone.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from graphc.backends.native import pool_ir
from graphc.backends.native.cache_keys import module_key
from graphc.backends.native.call_ir import WORDS
from graphc.backends.native.libraries import Library, load_by_key
from graphc.backends.native.python_function import builtin
from graphc.backends.native.target import host
from graphc.base import usable_cores
from graphc.base.scoped_lock import ScopedLock
from graphc.base.usable_cores import SHARE, IdleCores
from graphc.ir.op import Array

PROBER = 0
"""The number of the thread that reports an idle core: the caller's, which is not a worker."""


class Pool:
    """Workers, a prober, and the memory that they and their callers share (see pool_ir)."""

    def __init__(self, room: int) -> None:
        """Load the code and allocate the memory for at most `room` threads with the caller."""
        target = host()
        symbols = ("worker", "prober", "send_home", "poke", "in_turns", "call")
        key = module_key("pool")
        self._library = load_by_key(key, lambda: (pool_ir.pool_ir(target),), symbols, target)
        self.room = min(room, pool_ir.MOST_PARTS)
        self._memory = _zeroed(pool_ir.offset_of(self.room))
        self.address: int = self._memory.ctypes.data
        self.entry = self._library.address("call")
        """The address of the builtin that runs a program: see `bind`."""
        poke = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(self._library.address("poke"))
        self._wake_prober: Callable[[], None] = lambda: poke(self._asked.ctypes.data)
        self._asked = self._word("asked", np.int32)
        self._answered = self._word("answered", np.int32)
        self._answer_time = self._word("answer_time", np.int64)
        self._starting = ScopedLock()
        self.reset()

    def _word(self, name: str, dtype: type[np.generic]) -> Array:
        _, offset = pool_ir.POOL[name]
        return self._memory[offset : offset + dtype().itemsize].view(dtype)

    @property
    def workers(self) -> int:
        """The number of workers that are alive."""
        return sum(thread.is_alive() for tid, thread in self._threads.items() if tid != PROBER)

    def start(self, threads: int) -> None:
        """Start the workers for `threads` threads, or as many as the system allows."""
        wanted = range(1, min(threads, self.room))
        # It stops at the first thread that the system refuses.
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
        """The time of the answer to the last question, by `time.monotonic_ns`; None until then."""
        return int(self._answer_time[0]) if self._answered[0] == self._asked[0] else None

    def close(self) -> None:
        """End the threads: from now on programs run on their caller's thread alone."""
        self._closed = True
        self._function("send_home", ctypes.c_void_p, ctypes.c_int64)(self.address, self.room)
        for thread in list(self._threads.values()):
            if thread.is_alive():
                # The threads are daemons: one that is late does not keep Python from ending.
                thread.join(timeout=1.0)

    def reset(self) -> None:
        """Reset the pool to no threads: a fork copies the memory, but not the threads."""
        self._memory[:] = 0
        self._threads: dict[int, threading.Thread] = {}
        self._closed = False
        self.idle = IdleCores(self)

    def _has(self, tid: int, name: str, work: Callable[[int], None]) -> bool:
        """Start a thread unless it is alive, and return whether it is.

        If an interrupt leaves open whether one started, another gets its number, which is harmless.
        """
        thread = self._threads.get(tid)
        if thread is not None and thread.is_alive():
            return True
        return not self._closed and self._starting(self._started, tid, name, work)

    def _started(self, tid: int, name: str, work: Callable[[int], None]) -> bool:
        thread = self._threads.get(tid)
        if thread is None or not thread.is_alive():  # and no other caller started it meanwhile
            thread = threading.Thread(target=work, args=(tid,), name=name, daemon=True)
            self._threads[tid] = thread  # before it starts, which an interrupt may end
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

    def in_turns(
        self, address: int, table: Array, n: int, threads: int, epoch: int
    ) -> Callable[[], None]:
        """Return a call that runs the parts of an epoch of `threads` threads here, the last first.

        `address` is that of a program's function, `table` and `n` are what it runs on.
        """
        pointer, whole = ctypes.c_void_p, ctypes.c_int64
        run = self._function("in_turns", pointer, pointer, whole, whole, whole)
        return lambda: run(address, table.ctypes.data, n, threads, epoch)

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
        # Room for all cores: affinity and quotas may allow more of them later.
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
        _pool.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


UNLOCKED = 20
"""The microseconds from which a run releases the interpreter's lock: handing it over takes 20."""


def bind(
    library: Library,
    symbol: str,
    table: Array,
    *,
    shared: Sequence[bool] = (True,),
    threads: int = 1,
    estimate: float = UNLOCKED,
) -> Callable[[int], None]:
    """Return `run(n)`: it runs the program `symbol` on `table`, an array of addresses, and n rows.

    It uses up to `threads` threads; results must not depend on their number.  `shared` says of each
    epoch whether they share it, or whether the caller computes it alone.  `estimate` is the
    microseconds of a run on one thread, roughly.
    """
    workers = pool()
    frame = (ctypes.c_uint64 * len(WORDS))()
    choice = Choice(frame, min(threads, workers.room), workers, estimate * 1000)
    review = choice.review if threads > 1 else None
    flags = np.array(shared, np.uint8)
    unlocks = estimate >= UNLOCKED
    words: dict[str, int] = {
        "pool": workers.address,
        "function": library.address(symbol),
        "table": table.ctypes.data,
        "epochs": len(flags),
        "shared": flags.ctypes.data,
        "timed": unlocks or threads > 1,
        "unlocks": unlocks,
        "review": id(review),
        "none": id(None),
        "threads": 1,
        "left": 0 if review else FOREVER,
        "longest_pause": FOREVER,
        "most": FOREVER,
    }
    for name, value in words.items():
        frame[WORDS.index(name)] = value
    keep: tuple[Any, ...] = (review, table, library, workers, flags)
    return builtin("run", workers.entry, frame, keep)


LOOK = 2_000_000
"""Nanoseconds of runs after which busy cores are re-examined."""
PERIOD = 20_000_000
"""Nanoseconds of runs after which a choice is reviewed."""
PAYS = 0.98
"""The fraction of the time alone below which a shared run is worth it."""
LATE, SPARE = 1.25, 20_000
"""The time that a shared run may take: that of one alone times LATE, and SPARE nanoseconds."""
TRIAL_RUNS, TRIAL_TIME = 3, 200_000
"""The least number of runs that are measured after a change, and their least nanoseconds."""
WARM_TIME = 200_000
"""The nanoseconds of runs after a change that do not count: workers wake, and caches fill."""
PAUSES = 50_000_000, 3_200_000_000
"""Nanoseconds between trials: at first, and at most, after many that changed nothing."""
LONG = 500_000
"""The nanoseconds of a run from which it pays to wake workers for it."""
PAUSE = 3
"""A pause is longer than so many runs: for a short one, workers that sleep are not worth waking."""
FOREVER = 2**62

Frame = ctypes.Array[ctypes.c_uint64]
Phase = Literal["cold", "measured", "steady"]
"""The state of the runs since the last review.

"cold" are the first runs after a change, which wake threads and fill caches and do not count;
"measured" are the runs that measure the change; "steady" are all later ones."""


class Choice:
    """The choice for one bound program.

    `frame` holds the part of it that native code reads, `estimate` is the nanoseconds of a run on
    one thread, until they are known.
    """

    def __init__(self, frame: Frame, most: int, pool: Pool, estimate: float) -> None:
        self._frame, self._most, self._pool, self._estimate = frame, most, pool, estimate
        self._times = [0.0, 0.0]
        """Nanoseconds of a run alone and of a shared one; 0 if not known."""
        self._shared, self._trial = False, False
        self._phase: Phase = "steady"
        self._wanted = 1
        """The runs of a phase that is not steady."""
        self._seen = [0, 0]
        """Of these, the runs so far, and their nanoseconds: late ones are reviewed one by one."""
        self._next_trial = 0
        self._pause = PAUSES[0]

    def review(self) -> None:
        """Learn from the runs since the last review, and choose for the next."""
        now = time.monotonic_ns()
        runs, spent, stalled = (self._take(name) for name in ("runs", "time", "stalled"))
        if stalled:  # which says nothing of other runs
            self._choose(now, may_share=not self._pool.idle.stalled(stalled, self._gain()))
            return
        if runs and self._phase != "steady":
            runs, spent = self._seen[0] + runs, self._seen[1] + spent
            self._seen = [runs, spent]
            if runs < self._wanted:
                self._set("left", self._wanted - runs - 1)
                return
            if self._phase == "cold":
                self._begin("measured", _runs_in(TRIAL_TIME, spent / runs, TRIAL_RUNS))
                return
        if runs:
            self._learn(spent / runs, now)
        self._choose(now, may_share=True)

    def _begin(self, phase: Phase, runs: int) -> None:
        """Begin a phase of so many runs."""
        self._phase, self._wanted, self._seen = phase, runs, [0, 0]
        self._set("left", runs - 1)

    def _learn(self, found: float, now: int) -> None:
        """Record the time of a run; later ones are averaged in, against noise."""
        new = self._phase == "measured"
        self._times[self._shared] = found if new else (self._times[self._shared] + found) / 2
        if self._trial:
            self._plan_trial(now)

    def _plan_trial(self, now: int) -> None:
        """Delay the next trial: in proportion to its cost, and longer if it changed nothing."""
        alone, together = self._times
        changes = self._pays() == self._shared
        self._pause = PAUSES[0] if changes else min(2 * self._pause, PAUSES[1])
        runs = _warm(alone) + _runs_in(TRIAL_TIME, alone, TRIAL_RUNS)
        if self._at_once(not self._pays()):
            runs = 1
        cost = abs(together - alone) * runs
        self._next_trial = now + max(self._pause, int(SHARE * cost))

    def _pays(self) -> bool:
        """Return whether a shared run is faster than one alone, as measured or, once, estimated."""
        return self._gain() > 1 - PAYS or (self._long() and not self._times[False])

    def _gain(self) -> float:
        """Return the share of the time alone that a shared run saves; 0 if not measured."""
        alone, together = self._times
        return 1 - together / alone if together and alone else 0.0

    def _time(self) -> float:
        """Return the nanoseconds of a run alone."""
        return self._times[False] or self._estimate

    def _long(self) -> bool:
        return self._time() >= LONG

    def _at_once(self, shared: bool) -> bool:
        """Return whether one run measures a choice: a long one alone, unless it is the first."""
        return self._long() and not shared and any(self._times)

    def _is_shareable(self) -> bool:
        """Return whether cores are idle, which a short run asks only once it was measured alone."""
        known = any(self._times) or self._long()
        return known and self._pool.idle.free(int(self._time() / SHARE))

    def _choose(self, now: int, may_share: bool) -> None:
        alone = self._times[False]
        cores = min(self._most, usable_cores.cores())
        may_share = may_share and cores > 1 and self._is_shareable()
        self._trial = may_share and any(self._times) and now >= self._next_trial
        shared = may_share and self._pays() != self._trial
        changes = shared != self._shared or not self._times[shared]
        self._shared = shared
        if shared:
            self._pool.start(cores)
            self._set("deadline", int(LATE * alone) + SPARE if alone else FOREVER)
        self._set("threads", cores if shared else 1)
        self._set("most", int(4 * alone) or FOREVER)
        self._set("longest_pause", int(PAUSE * alone) if 0 < alone < LONG else FOREVER)
        span = min(PERIOD, max(0, self._next_trial - now)) if may_share else LOOK
        if not changes:
            self._begin("steady", _runs_in(span, self._times[shared]))
        elif self._at_once(shared):
            self._begin("measured", 1)
        else:
            self._begin("cold", _warm(alone))

    def _take(self, name: str) -> int:
        """Return a word of the frame, and set it to 0."""
        index = WORDS.index(name)
        value, self._frame[index] = self._frame[index], 0
        return int(value)

    def _set(self, name: str, value: int) -> None:
        self._frame[WORDS.index(name)] = value


def _warm(time: float) -> int:
    """Return how many runs after a change do not count; `time` is 0 if not known."""
    return _runs_in(WARM_TIME, time) if time else 1


def _runs_in(span: int, time: float, least: int = 1) -> int:
    """Return how many runs of a time fill a span, at least `least`."""
    return max(least, int(span / max(1.0, time)))
