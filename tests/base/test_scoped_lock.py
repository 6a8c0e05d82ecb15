"""Locks that are released whatever is raised, and that a fork does not leave held."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import graphc as gc
from graphc.base.scoped_lock import Scope, ScopedLock
from graphc.runtime.entry import StateLock
from tests.extras import where
from tests.runtime.injection.subjects import FEEDS, plan

BACKENDS = ["numpy", where("native")]
forks = pytest.mark.needs("POSIX")


@contextmanager
def held(lock: Callable[..., object], work: Callable[[], object] = bool) -> Iterator[None]:
    """Another thread is inside meanwhile."""
    inside, go = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(lock, lambda: (work(), inside.set(), go.wait(20)))
        assert inside.wait(20)
        try:
            yield
        finally:
            go.set()
            done.result(20)


def in_child(check: Callable[[], bool]) -> bool:
    """What a child of fork finds, or False where it does not end."""
    child = os.fork()
    if not child:
        threading.Timer(20, os._exit, [2]).start()
        os._exit(0 if check() else 1)
    return os.waitpid(child, 0)[1] == 0


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("cannot enter context: x")])
def test_an_error_passes_and_leaves_the_lock_free(error: Exception) -> None:
    lock = ScopedLock()
    with pytest.raises(type(error)) as caught:
        lock(fail, error)
    assert caught.value is error
    assert not lock.entered


def test_the_thread_that_holds_a_lock_may_take_it_again() -> None:
    one, two = ScopedLock(), ScopedLock()
    assert one(lambda: two(lambda: one(lambda: two(lambda: one.entered and two.entered))))
    assert not one.entered


def test_others_wait_and_go_on_in_turn() -> None:
    lock, inside, most = ScopedLock(), [0], [0]

    def work() -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        threading.Event().wait(0.0001)
        inside[0] -= 1

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(lambda: [lock(work) for _ in range(20)]) for _ in range(4)]:
            done.result(60)
    assert most == [1]
    assert not lock.waiting


def test_a_scope_is_entered_once() -> None:
    scope = Scope()
    assert not scope.entered
    assert scope.run(lambda: scope.entered)
    with held(scope.run):
        assert scope.entered
    assert not scope.entered


@forks
def test_a_child_finds_what_another_thread_held_free() -> None:
    lock, own = ScopedLock(), ScopedLock()
    with held(lock):
        assert own(lambda: in_child(lambda: lock(lambda: own.entered)))
        assert lock.entered


@forks
@pytest.mark.parametrize("writes", [True, False])
def test_a_state_that_was_being_written_is_broken_in_the_child(writes: bool) -> None:
    lock = StateLock()
    with held(lock, lambda: lock.begin(writes=writes)):
        assert in_child(lambda: lock.broken == writes)
    assert not lock.broken


@forks
@pytest.mark.parametrize("where", BACKENDS)
def test_a_fork_while_another_thread_steps(where: str) -> None:
    ex = gc.Executor(plan(where), seed=3)
    saved = ex.snapshot()
    first = ex.step(FEEDS)

    def child() -> bool:
        ex.parameters.flat()
        with pytest.raises(gc.StateError, match="failed half-way"):
            ex.step(FEEDS)
        ex.state = saved
        return ex.step(FEEDS) == first

    with held(ex._entry, lambda: ex.state.lock.begin(writes=True)):
        assert in_child(child)
    ex.state = saved
    assert ex.step(FEEDS) == first


@forks
def test_nobody_forks_while_another_thread_compiles() -> None:
    from graphc.backends.native.llvm import LLVM

    inside, over = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(LLVM, lambda: (inside.set(), over.wait(0.2), over.set()))
        assert inside.wait(20)
        assert in_child(lambda: over.is_set() and not LLVM.entered)
        done.result(20)
