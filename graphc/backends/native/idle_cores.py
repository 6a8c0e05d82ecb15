"""Find out whether cores are idle beside the thread that calls.

On Linux a thread of the class SCHED_IDLE is asked now and then: it answers at once where a core
has nothing to do, and late, disturbing nobody, where all are busy.  Elsewhere time decides: after
a stall, programs run on one thread for a hundred times as long as it took.
"""

from __future__ import annotations

import time
from typing import Protocol

PROMPT = 200_000
"""Nanoseconds within which a prober answers that has a core for itself."""
FIRST, MOST = 2, 1024
"""Prompt answers in a row that show idle cores: at first, and after many stalls."""
SHARE = 100
"""A stall may take a hundredth of the time that it is risked in, where nothing says more."""


class Prober(Protocol):
    """A thread that runs on idle cores only."""

    @property
    def answered(self) -> int | None:
        """When it answered the last question, by `time.monotonic_ns`; None before."""

    def start_prober(self) -> bool:
        """Have the thread; return whether there can be one."""

    def ask(self) -> None:
        """Ask it, to be answered as soon as a core is idle."""


class IdleCores:
    """The idle cores of the machine, as far as they have been looked for."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        self._free = False
        self._since = self._asked = self._again = 0
        self._prompt, self._wanted = 0, FIRST

    def free(self) -> bool:
        """Return whether cores were idle when last seen, and look where they were not."""
        if not self._free:
            now = time.monotonic_ns()
            free = self._answers(now) if self._prober.start_prober() else now >= self._again
            if free:
                self._free, self._since = True, now
        return self._free

    def stalled(self, took: int, gain: float) -> bool:
        """Learn that a shared run stalled, and took so many nanoseconds.

        `gain` is the share of the time alone that sharing saves.  Return whether cores count as
        busy now: what sharing has saved since it began, or since it last stalled, is less.
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
