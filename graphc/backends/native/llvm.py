"""LLVM: whether it is here, its bindings, and the lock under which they are used."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from functools import lru_cache
from threading import get_ident
from typing import Any, TypeVar

from graphc.base.scoped_lock import WORKING, ScopedLock

OLDEST_LLVMLITE = (0, 45)


def missing_llvm() -> str | None:
    """Return why there is no LLVM, or None."""
    try:
        bindings()
    except (ImportError, OSError, RuntimeError):
        return "llvmlite is missing"
    if _llvmlite_version() < OLDEST_LLVMLITE:
        return "llvmlite is older than " + ".".join(map(str, OLDEST_LLVMLITE))
    return None


@lru_cache(maxsize=1)
def bindings() -> Any:
    """Return llvmlite's bindings, ready to make code for this process.

    Raise ImportError, OSError or RuntimeError if they are missing or broken.
    """
    return LLVM(_bindings)


def _bindings() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()  # inline assembly without it ends the whole process
    return llvm


def _llvmlite_version() -> tuple[int, ...]:
    import llvmlite

    return tuple(map(int, re.findall(r"\d+", llvmlite.__version__)[:2]))


def compiler_version() -> str:
    """Return the versions of llvmlite and LLVM: other ones may generate other code."""
    import llvmlite

    return f"llvmlite {llvmlite.__version__}, LLVM {bindings().llvm_version_info}"


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
        if self.held_here:  # another thread that forks waits for this one
            return work(*args)
        made: list[T] = []
        while not made:
            super().__call__(self._unless_forking, made, work, args)
        return made[0]

    def help(self, work: Callable[[], None]) -> None:
        """Call `work` in a thread that the one with the lock waits for, as if it had the lock."""
        work()

    def _unless_forking(self, made: list[T], work: Callable[..., T], args: tuple[Any, ...]) -> None:
        if self._forking in (0, get_ident()):
            made.append(work(*args))
        else:
            # This call leaves the lock again, so that the forking thread can take it.
            time.sleep(0.001)

    def _before(self) -> None:
        self._forking = get_ident()
        super().__call__(bool)  # waits for the thread inside

    def _after(self) -> None:
        self._forking = 0


WORKING.add(LLVMLock.help.__code__)
LLVM = LLVMLock()
