"""The border of a run: one call at a time, on a state that can be trusted, without warnings."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from contextvars import Context, copy_context

import numpy as np

from graphc.backends.numpy.bind import Call
from graphc.errors import StateError
from graphc.loc import caller_loc
from graphc.runtime.state import State

ENTERING = {"forward", "backward", "update", "step", "snapshot", "refresh"}
"""The methods of an executor that enter."""


class Entry:
    """Entered by each call of an executor.  A class, since a generator costs a microsecond.

    `enter` and `leave` are for those in a hurry: `with` costs 0.1 us more.
    StateError when another thread is inside, or when the state is broken.
    """

    __slots__ = ("_busy", "_lock", "_owner", "_state")

    def __init__(self, state: State) -> None:
        self._state, self._lock, self._busy = state, state.lock, threading.Lock()
        self._owner = 0
        """The thread that entered last."""

    def enter(self) -> None:
        """Wait for executors that share the state; refuse other threads in this one."""
        if not self._busy.acquire(False) and not self._left_behind():
            raise StateError(
                "this executor is running in another thread",
                loc=caller_loc(),
                hint="make one executor a thread: gc.Executor(plan, state=ex.state)",
            )
        self._owner = threading.get_ident()
        try:
            self._lock.acquire()
        except BaseException:
            self._busy.release()
            raise
        if self._state.broken:
            self.leave()
            raise StateError(
                "an earlier step failed half-way, so the state cannot be trusted",
                loc=caller_loc(),
                hint="assign a good one: ex.state = saved_state",
            )

    def leave(self) -> None:
        """Let others in."""
        try:
            self._lock.release()
        finally:
            self._busy.release()

    def _left_behind(self) -> bool:
        """Whether an interrupt came between this thread's last call and its leaving.

        Then the thread is owner, but none of its calls is inside; its locks are taken over.
        """
        if self._owner != threading.get_ident():
            return False
        frame, inside = sys._getframe(1), 0
        while frame is not None:
            caller = frame.f_locals.get("self") if frame.f_code.co_name in ENTERING else None
            inside += getattr(caller, "_entry", None) is self
            frame = frame.f_back  # type: ignore[assignment]
        if inside > 1:
            return False
        while self._lock._is_owned():
            self._lock.release()
        return True

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *error: object) -> None:
        self.leave()


def quiet_context() -> Context:
    """Where NumPy does not warn: an overflow is the model's business.  `errstate` costs 0.5 us."""
    context = copy_context()
    context.run(np.seterr, all="ignore")
    return context


def run_all(calls: Sequence[Call]) -> None:
    """Make the calls in order."""
    for call in calls:
        call()
