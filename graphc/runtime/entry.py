"""The entry to a run: one call at a time, and without NumPy's warnings."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, TypeVar

import numpy as np

from graphc.base.errors import StateError
from graphc.base.loc import caller_loc
from graphc.base.scoped_lock import WORKING, Scope, was_entered
from graphc.runtime.state import State

T = TypeVar("T")


class Entry:
    """The lock that each call of an executor takes.

    It waits for executors that share the state; raise StateError if this one is running.
    """

    __slots__ = ("_lock", "_own")

    def __init__(self, state: State) -> None:
        self._own, self._lock = Scope(), state.lock

    def __call__(self, work: Callable[..., T], *args: Any) -> T:
        """Call a Python function while the executor is locked, and return its result."""
        lock = self._lock
        while True:
            try:
                result = self._own.run(lock.run, work, *args)
            except RuntimeError as error:
                if not was_entered(error):
                    raise
            else:
                if lock.waiting:
                    lock.wake()
                return result
            if self._own.entered:
                raise StateError(
                    "this executor is running in another thread",
                    loc=caller_loc(),
                    hint="make one executor per thread: gc.Executor(plan, state=ex.state)",
                )
            if lock.held_here:
                return self._own.run(work, *args)
            lock.wait()

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """The scopes that a call is inside of while it works."""
        return self._own, self._lock


WORKING.add(Entry.__call__.__code__)


def quiet_context() -> Context:
    """Return a context in which NumPy does not warn; entering `errstate` each time costs 0.5 us.

    An overflow is the model's business.
    """
    context = copy_context()
    context.run(np.seterr, all="ignore")
    return context
