"""Delays Ctrl-C until a step is over."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from graphc.base.scoped_lock import Scope

T = TypeVar("T")


class StepBorder:
    """Holds an interrupt back until `check` or the end of `run`.

    A step that is cut off half-way would leave a count of steps that is not the state's.  Only
    the main thread gets signals, so in another one this does nothing.
    """

    def __init__(self) -> None:
        self._scope = Scope()
        self._held: tuple[int, FrameType | None] | None = None
        self._before: Any = None

    def run(self, work: Callable[..., T], *args: Any) -> T:
        """Make a call, in which an interrupt takes effect only at `check`."""
        self._before = signal.getsignal(signal.SIGINT)
        holds = callable(self._before)
        if holds:
            try:
                signal.signal(signal.SIGINT, self._hold)
            except ValueError:  # not the main thread
                holds = False
        try:
            made = self._scope.run(work, *args)
        finally:
            if holds:
                signal.signal(signal.SIGINT, self._before)
        self.check()
        return made

    def check(self) -> None:
        """Deliver an interrupt that was held back: usually raise KeyboardInterrupt."""
        if self._held is not None:
            (number, frame), self._held = self._held, None
            self._before(number, frame)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self._scope.entered:
            self._held = number, frame
        else:  # an exception came before the old handler was restored
            signal.signal(signal.SIGINT, self._before)
            self._before(number, frame)
