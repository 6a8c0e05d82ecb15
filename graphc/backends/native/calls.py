"""A native program as a builtin of Python, and the number of threads of each call.

The builtin is machine code generated for this purpose (see call_ir): a call costs a fifth of one
through ctypes.

The number of threads is chosen at every call, by measured times; results do not depend on it.  A
run is shared if that is faster by its own times, and cores are idle.  Now and then the other way is
tried, so seldom that it costs under a hundredth.  A shared run that is late continues on its
caller's thread alone.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any, Literal

from graphc.backends.native.call_ir import WORDS
from graphc.backends.native.jit import Library, builtin
from graphc.backends.native.pool import Pool, pool
from graphc.base import usable_cores
from graphc.base.usable_cores import SHARE
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


LOOK = 2_000_000
"""Nanoseconds of runs after which busy cores are re-examined."""
PERIOD = 20_000_000
"""Nanoseconds of runs after which a choice is reviewed."""
PAYS = 0.98
"""The fraction of the time alone below which a shared run is worth it."""
LATE, SPARE = 1.25, 20_000
"""The time that a shared run may take: that of one alone times LATE, and SPARE nanoseconds."""
TRIAL_RUNS, TRIAL_TIME = 3, 100_000
"""The least number of runs that are measured after a change, and their least nanoseconds."""
PAUSES = 50_000_000, 3_200_000_000
"""Nanoseconds between trials: at first, and at most, after many that changed nothing."""
FOREVER = 2**62

Frame = ctypes.Array[ctypes.c_uint64]
Phase = Literal["cold", "measured", "steady"]
"""The state of the runs since the last review.

"cold" is the first run after a change, which woke threads and filled caches and does not count;
"measured" are the runs that measure the change; "steady" are all later ones."""


class Choice:
    """The choice for one bound program; `frame` holds the part of it that native code reads."""

    def __init__(self, frame: Frame, most: int, pool: Pool) -> None:
        self._frame, self._most, self._pool = frame, most, pool
        self._times = [0.0, 0.0]
        """Nanoseconds of a run alone and of a shared one; 0 if not known."""
        self._shared, self._trial = False, False
        self._phase: Phase = "steady"
        self._next_trial = 0
        self._pause = PAUSES[0]

    def review(self) -> None:
        """Learn from the runs since the last review, and choose for the next."""
        now = time.monotonic_ns()
        runs, spent, stalled = (self._take(name) for name in ("runs", "time", "stalled"))
        if stalled:  # which says nothing of other runs
            self._choose(now, may_share=not self._pool.idle.stalled(stalled, self._gain()))
            return
        if runs and self._phase == "cold":
            self._phase = "measured"
            self._set("left", _runs_in(TRIAL_TIME, spent / runs, TRIAL_RUNS) - 1)
            return
        if runs:
            self._learn(spent / runs, now)
        self._choose(now, may_share=True)

    def _learn(self, found: float, now: int) -> None:
        """Record the time of a run; later ones are averaged in, so that chance fades."""
        new = self._phase == "measured"
        self._times[self._shared] = found if new else (self._times[self._shared] + found) / 2
        if self._trial:
            self._plan_trial(now)

    def _plan_trial(self, now: int) -> None:
        """Delay the next trial: by the cost of this one, and longer if it changes nothing."""
        alone, together = self._times
        changes = self._pays() == self._shared
        self._pause = PAUSES[0] if changes else min(2 * self._pause, PAUSES[1])
        cost = abs(together - alone) * (1 + _runs_in(TRIAL_TIME, alone, TRIAL_RUNS))
        self._next_trial = now + max(self._pause, int(SHARE * cost))

    def _pays(self) -> bool:
        """Return whether a shared run is faster than one alone, as far as is known."""
        return self._gain() > 1 - PAYS

    def _gain(self) -> float:
        """Return the share of the time alone that a shared run saves; 0 where not known."""
        alone, together = self._times
        return 1 - together / alone if together and alone else 0.0

    def _choose(self, now: int, may_share: bool) -> None:
        alone = self._times[False]
        cores = min(self._most, usable_cores.cores())
        may_share = may_share and cores > 1 and alone > 0 and self._pool.idle.free()
        self._trial = may_share and now >= self._next_trial
        shared = may_share and self._pays() != self._trial
        changes = shared != self._shared or not self._times[shared]
        self._shared, self._phase = shared, "cold" if changes else "steady"
        if shared:
            self._pool.start(cores)
            self._set("deadline", int(LATE * alone) + SPARE)
        self._set("threads", cores if shared else 1)
        self._set("most", int(4 * alone) or FOREVER)
        span = min(PERIOD, max(0, self._next_trial - now)) if may_share else LOOK
        self._set("left", 0 if changes else _runs_in(span, self._times[shared]) - 1)

    def _take(self, name: str) -> int:
        """Return a word of the frame, and set it to 0."""
        index = WORDS.index(name)
        value, self._frame[index] = self._frame[index], 0
        return int(value)

    def _set(self, name: str, value: int) -> None:
        self._frame[WORDS.index(name)] = value


def _runs_in(span: int, time: float, least: int = 1) -> int:
    """Return the number of runs of that time that fill a span, but not fewer than `least`."""
    return max(least, int(span / max(1.0, time)))
