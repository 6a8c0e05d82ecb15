"""What an interrupted call left: all that it does, nothing, a broken state, or a fault."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import graphc as gc
from tests.runtime.injection.subjects import FEEDS, Subject

PATIENCE = 60.0
"""Seconds after which another thread that waits for a lock is said to hang."""
REFUSED = "refused"
Seen = Hashable


def bits(arrays: Any) -> Seen:
    """Arrays by name, to be compared."""
    return tuple(sorted((name, np.asarray(array).tobytes()) for name, array in arrays.items()))


def state_of(ex: gc.Executor) -> Seen:
    return bits(dict(ex.state))


def refusable(act: Callable[[], Any]) -> Seen:
    """What a call gives, or that it is refused."""
    try:
        found = act()
    except gc.StateError:
        return REFUSED
    return bits(found) if isinstance(found, dict) else found


def probes(ex: gc.Executor) -> list[Seen]:
    """What later calls give: each by itself must not depend on an interrupted one."""
    found = [bits(ex.values), refusable(ex.backward)]
    loss = ex.step(FEEDS)
    return [*found, (loss, state_of(ex))]


class CallJudge:
    """Knows what a subject gives, and judges what is left after an interrupt."""

    def __init__(self, subject: Subject, where: str) -> None:
        self.subject, self.where, self.name = subject, where, subject.name
        self.ex = subject.executor(where)
        self.good = self.ex.snapshot()
        if not subject.fresh:
            subject.warm(self.ex)
        self.before, self.none = self._clean(call=False)
        self.after, self.all = self._clean(call=True)
        self._threads = ThreadPoolExecutor(1)

    def _clean(self, call: bool) -> tuple[Seen, list[Seen]]:
        made = self.prepared()
        if call:
            made()
        ex = self.ex
        return state_of(ex), probes(ex)

    def prepared(self) -> Callable[[], Any]:
        """The call on an executor that is ready for it."""
        if self.subject.fresh:
            self.ex = self.subject.executor(self.where)
        self.ex.state = self.good
        self.subject.ready(self.ex)
        return lambda: self.subject.call(self.ex)

    def judge(self) -> str:
        """all, none, broken, wrong or hung."""
        ex = self.ex
        try:
            self._threads.submit(ex.parameters.flat).result(PATIENCE)
            self._threads.submit(refusable, ex.snapshot).result(PATIENCE)
            if self.subject.fresh:  # which binds, and so takes all locks of a process
                self._threads.submit(self._other).result(PATIENCE)
        except TimeoutError:
            self._threads = ThreadPoolExecutor(1)
            return "hung"
        found = "broken" if ex.state.broken else self._found(ex)
        return found if self._goes_on() else "wrong"

    def _other(self) -> None:
        self.subject.executor(self.where).step(FEEDS)

    def _found(self, ex: gc.Executor) -> str:
        state = state_of(ex)
        if state not in (self.before, self.after):
            return "wrong"
        allowed: list[Seen] = [bits({}), REFUSED]
        steps = self.all if state == self.after else self.none
        values, backward, step = probes(ex)
        right = values in (allowed[0], self.all[0], self.none[0])
        right &= backward in (REFUSED, self.all[1], self.none[1])
        right &= step == steps[2]
        if not right:
            return "wrong"
        return "none" if state == self.before else "all"

    def _goes_on(self) -> bool:
        """Whether from a good state the call gives what it should."""
        self.ex.state = self.good
        self.subject.ready(self.ex)
        self.subject.call(self.ex)
        return state_of(self.ex) == self.after and probes(self.ex) == self.all
