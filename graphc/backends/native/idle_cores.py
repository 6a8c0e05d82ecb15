"""Detection of idle cores, besides the core of the calling thread.

On Linux a thread of the scheduling class SCHED_IDLE is asked now and then: it answers at once if a
core has nothing to do, and late, without disturbing other threads, if all are busy.  On other
systems time decides: after a stall, programs run on one thread for a hundred times as long as the
stall took.
"""

from __future__ import annotations

import time
from typing import Protocol

PROMPT = 200_000
"""Nanoseconds within which a prober with a core for itself answers."""
FIRST, MOST = 2, 1024
"""The number of prompt answers in a row that show idle cores: at first, and after many stalls."""
SHARE = 100
"""Stalls may take a hundredth of the time in which they are risked, unless a known gain allows
more."""


class Prober(Protocol):
    """A thread that runs on idle cores only."""

    @property
    def answered(self) -> int | None:
        """The time of its answer to the last question, by `time.monotonic_ns`; None before."""

    def start_prober(self) -> bool:
        """Start the thread unless it runs; return whether this system can have one."""

    def ask(self) -> None:
        """Ask the prober, which answers as soon as a core is idle."""


class IdleCores:
    """The record of whether the machine has idle cores, updated when they are looked for."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        self._free = False
        self._since = self._asked = self._again = 0
        self._prompt, self._wanted = 0, FIRST

    def free(self) -> bool:
        """Return whether cores were idle when last seen; if they were not, look now."""
        if not self._free:
            now = time.monotonic_ns()
            free = self._answers(now) if self._prober.start_prober() else now >= self._again
            if free:
                self._free, self._since = True, now
        return self._free

    def stalled(self, took: int, gain: float) -> bool:
        """Record that a shared run stalled, and return whether cores count as busy now.

        The run took `took` nanoseconds; `gain` is the fraction of the time of a run on one thread
        that sharing saves.  Cores count as busy if sharing has saved less than `took` since it
        began, or since its last stall.
        """
        now = time.monotonic_ns()
        busy = (now - self._since) * max(gain, 1 / SHARE) < took
        self._since = now
        self._wanted = min(2 * self._wanted, MOST) if busy else FIRST
        if busy:
            self._again = now + SHARE * took
            self._free, self._prompt, self._asked = False, 0, 0
        return busy

    def _answers(self, now: int) -> bool:
        """Return whether the prober was prompt often enough, and ask it again if not."""
        answered = self._prober.answered
        if answered is None:
            if now - self._asked > PROMPT:
                self._prompt = 0
            return False
        if self._asked:
            self._prompt = self._prompt + 1 if answered - self._asked <= PROMPT else 0
        if self._prompt >= self._wanted:
            return True
        self._asked = now
        self._prober.ask()
        return False
