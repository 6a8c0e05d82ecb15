"""The lock around all work of LLVM, which serves one thread at a time anyhow."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from threading import get_ident
from typing import Any, TypeVar

from graphc.base.scoped_lock import ScopedLock

T = TypeVar("T")


class LLVMLock(ScopedLock):
    """A scoped lock that only the forking thread may hold while the process forks.

    A child of fork must not find LLVM halfway through another thread's work.
    """

    __slots__ = ("_forking",)

    def __init__(self) -> None:
        super().__init__()
        self._forking = 0
        """The identifier of the thread that forks, or 0."""
        if hasattr(os, "register_at_fork"):
            after = self._after
            os.register_at_fork(before=self._before, after_in_parent=after, after_in_child=after)

    def __call__(self, work: Callable[..., T], *args: Any) -> T:
        """Wait until no other thread holds the lock or forks, then call `work` under the lock."""
        made: list[T] = []
        while not made:
            super().__call__(self._unless_forking, made, work, args)
        return made[0]

    def _unless_forking(self, made: list[T], work: Callable[..., T], args: tuple[Any, ...]) -> None:
        if self._forking in (0, get_ident()):
            made.append(work(*args))
        else:
            time.sleep(0.001)

    def _before(self) -> None:
        self._forking = get_ident()
        super().__call__(bool)  # waits for the thread inside

    def _after(self) -> None:
        self._forking = 0


LLVM = LLVMLock()
