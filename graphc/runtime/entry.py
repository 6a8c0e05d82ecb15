"""The lock of a state and the calls of a run: no interrupt within a write, no NumPy warnings."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextvars import Context, copy_context
from functools import partial
from itertools import chain
from operator import call

import numpy as np

from graphc.backends.backend import Call
from graphc.base.errors import StateError
from graphc.base.scoped_lock import ScopedLock


def run_all(calls: Iterable[Call]) -> None:
    """Make the calls in order.

    No Python bytecode runs between them, so that an interrupt comes before the first or after the
    last, unless a call is itself a Python function.
    """
    deque(map(call, calls), 0)


class StateLock(ScopedLock):
    """The lock that a call takes to read or write a state as a whole."""

    __slots__ = ("broken", "writing")

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        """True if a write has begun and not ended, so that no number of the state can be trusted.

        It is set first, and reset after the last write, without code that handles exceptions.
        """
        self.writing = False
        """True if the call that holds the lock, or held it last, may write."""

    def begin(self, writes: bool) -> None:
        """Begin a call that may write or only reads; raise StateError if the state is broken."""
        if self.broken:
            raise StateError(
                "an earlier step failed half-way, so the state cannot be trusted",
                hint="assign a good one: ex.state = saved_state",
            )
        self.writing = writes

    def write(self, calls: Iterable[Call], broken: bool = False) -> None:
        """Make calls that write; then the state is broken if `broken`, or if one has failed."""
        begin, end = (partial(setattr, self, "broken", value) for value in (True, broken))
        run_all(chain((begin,), calls, (end,)))

    def abandoned(self) -> None:
        """Release the lock in a forked child; a write of the thread that held it stays broken."""
        self.broken = self.broken or self.writing
        super().abandoned()


def quiet_context() -> Context:
    """Return a context in which NumPy does not warn; entering `errstate` each time costs 0.5 us.

    An overflow is a result of the model, not an error of the call.
    """
    context = copy_context()
    context.run(np.seterr, all="ignore")
    return context
