"""Locks that are released whatever exception is raised, and wherever.

Between `lock.acquire()` and `try`, or in a `finally`, an interrupt leaves one of Python's locks
held for ever.  The interpreter itself leaves a context when the call that entered it ends, and
refuses to enter it twice: so a context is the lock, and `Context.run` takes and releases it.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import Context, copy_context
from threading import Lock
from types import CodeType, FrameType
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")
PATIENCE = 0.01
"""Seconds after which a waiting thread tries by itself, in case no other thread woke it."""
HANDOVER = 5e-5
"""Seconds for which a thread sleeps after it has woken another."""


class Scope:
    """A scope that at most one call is inside of.

    `run(work, *args)` makes a call inside; it raises RuntimeError if there is one already.
    """

    __slots__ = ("__weakref__", "_context", "run")

    def __init__(self) -> None:
        self._use(copy_context())
        _SCOPES.add(self)

    def _use(self, context: Context) -> None:
        self._context, self.run = context, context.run

    @property
    def entered(self) -> bool:
        """True if a call is inside, of this thread or of another."""
        try:
            self.run(bool)
        except RuntimeError:
            return True
        return False

    def abandoned(self) -> None:
        """Let others in, after a fork: the thread that was inside is not in this process."""
        self._use(self._context.copy())


class ScopedLock(Scope):
    """A lock that is held while a call runs; a thread that holds it may take it again."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        super().__init__()
        self.waiting: deque[Lock] = deque()
        """The locks that the waiting threads wait for, the longest wait first."""

    def __call__(self, work: Callable[..., T], *args: Any) -> T:
        """Wait until no other thread holds the lock, and call a Python function under it."""
        while True:
            try:
                # If `work` raises, no thread is woken: the waiting ones try again after PATIENCE.
                result = self.run(work, *args)
            except RuntimeError as error:
                if not was_entered(error):
                    raise
            else:
                if self.waiting:
                    self.wake()
                return result
            if self.held_here:
                return work(*args)
            self.wait()

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """The scopes that a call of this object is inside of."""
        return (self,)

    @property
    def held_here(self) -> bool:
        """True if this thread holds the lock, in an outer call."""
        return any(scope is self for scope in _scopes_of_this_thread())

    def wait(self) -> None:
        """Wait until the lock may be free."""
        signal = Lock()
        signal.acquire()
        # The lock may have been released just before, without a look at this list: hence the
        # timeout.
        self.waiting.append(signal)
        if not signal.acquire(timeout=PATIENCE):
            with suppress(ValueError):
                self.waiting.remove(signal)

    def wake(self) -> None:
        """Wake the thread that has waited longest."""
        with suppress(IndexError):
            self.waiting.popleft().release()
            # Otherwise this thread would often take the lock again before the woken one runs.
            time.sleep(HANDOVER)

    def abandoned(self) -> None:
        """Let others in, after a fork, in which no thread waits."""
        super().abandoned()
        self.waiting.clear()


def was_entered(error: RuntimeError) -> bool:
    """Return whether `scope.run`, in the frame that caught this error, refused to enter."""
    trace = error.__traceback__
    here = trace is not None and trace.tb_next is None
    return here and str(error).startswith("cannot enter context")


WORKING: set[CodeType] = {ScopedLock.__call__.__code__}
"""The functions that run their argument `work` inside of the scopes of their `self`."""


def _scopes_of_this_thread() -> Iterator[Scope]:
    """Yield the scopes that this thread is inside of."""
    inner: FrameType = sys._getframe()
    while (frame := inner.f_back) is not None:
        if frame.f_code in WORKING:
            work = frame.f_locals["work"]
            if getattr(work, "__code__", None) is inner.f_code:  # running, not waiting
                yield from frame.f_locals["self"].scopes
        inner = frame


_SCOPES: WeakSet[Scope] = WeakSet()


def _after_fork() -> None:
    mine = {id(scope) for scope in _scopes_of_this_thread()}
    for scope in list(_SCOPES):
        if id(scope) not in mine and scope.entered:
            scope.abandoned()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
