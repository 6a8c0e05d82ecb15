"""The entry of calls to an executor and its state: in turn, uninterrupted, without warnings."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from functools import partial
from itertools import chain
from operator import call
from typing import Any, TypeVar

import numpy as np

from graphc.backends.backend import Call
from graphc.base.errors import StateError
from graphc.base.scoped_lock import WORKING, Scope, ScopedLock, was_entered

T = TypeVar("T")


def run_all(calls: Iterable[Call]) -> None:
    """Make the calls in order.

    No Python bytecode runs between them, so that an interrupt comes before the first or after the
    last, unless a call is itself a Python function.
    """
    deque(map(call, calls), 0)


class StateLock(ScopedLock):
    """The lock that a call takes to read or write a state as a whole."""

    __slots__ = ("broken", "version", "writing")

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        """True if a write has begun and not ended, so that no number of the state can be trusted.

        It is set first, and reset after the last write, without code that handles exceptions.
        """
        self.writing = False
        """True if the call that holds the lock, or held it last, may write."""
        self.version = object()
        """Another object after each write: what was computed from the state belongs to one."""

    def begin(self, writes: bool) -> None:
        """Begin a call that may write or only reads; raise StateError if the state is broken."""
        if self.broken:
            raise StateError(
                "an earlier step failed half-way, so the state cannot be trusted",
                hint="assign a good one: ex.state = saved_state",
            )
        self.writing = writes
        if writes:
            self.version = object()

    def write(self, calls: Iterable[Call], broken: bool = False) -> None:
        """Make calls that write; then the state is broken if `broken`, or if one has failed."""
        begin, end = (partial(setattr, self, "broken", value) for value in (True, broken))
        self.version = object()
        run_all(chain((begin,), calls, (end,)))

    def abandoned(self) -> None:
        """Release the lock in a forked child; a write of the thread that held it stays broken."""
        self.broken = self.broken or self.writing
        super().abandoned()


class Entry:
    """The lock that each call of an executor takes.

    It waits for executors that share the state; raise StateError if this one is running.  Entering
    both scopes takes 0.2 us of a step.  Only a call that finds one of them entered searches
    the frames of its thread for the call inside.
    """

    __slots__ = ("_lock", "_own")

    def __init__(self, lock: StateLock) -> None:
        self._own, self._lock = Scope(), lock

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
                    hint="make one executor per thread: gc.Executor(plan, state=ex.state)",
                )
            if lock.held_here:
                # An outer call of this thread holds the lock: of the state, or of another executor
                # of it.
                return self._own.run(work, *args)
            lock.wait()

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """The scopes that a call has entered while it works."""
        return self._own, self._lock


WORKING.add(Entry.__call__.__code__)


def quiet_context() -> Context:
    """Return a context in which NumPy does not warn; entering `errstate` each time costs 0.5 us.

    An overflow is a result of the model, not an error of the call.
    """
    context = copy_context()
    context.run(np.seterr, all="ignore")
    return context
