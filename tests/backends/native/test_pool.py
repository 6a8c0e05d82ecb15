"""Workers and the programs that they run: who takes part, in which mode, and what ends them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graphc.backends.native import pool, pool_ir
from graphc.backends.native.libraries import load
from graphc.backends.native.pool import UNLOCKED, Choice
from graphc.backends.native.target import Target, host
from tests.backends.native.small_programs import small_programs, table_of

pytestmark = pytest.mark.needs("native")
ROOT = Path(__file__).resolve().parents[3]
SUBNORMAL = np.float32(1e-39)
ESTIMATES = 1.0, 1000.0
"""Microseconds of runs that keep the interpreter's lock, and of runs that release it."""


def cells(n: int = 16) -> NDArray[np.int64]:
    return np.zeros(n, np.int64)


def bind(name: str, found: NDArray[Any], threads: int = 1, **more: Any) -> Callable[[int], None]:
    return pool.bind(small_programs(), name, table_of(found), threads=threads, **more)


def test_one_thread_runs_where_no_worker_is(four_threads: pool.Pool) -> None:
    for estimate in ESTIMATES:
        found = cells()
        assert bind("count", found, estimate=estimate)(3) is None
        assert found.tolist() == [3] + [0] * 7 + [1] + [0] * 7
    assert four_threads.workers == 0


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_each_part_is_computed_once_a_run(four_threads: pool.Pool, threads: int) -> None:
    found = cells()
    run = bind("count", found, threads)
    for _ in range(50):
        run(1)
    assert found[:8].tolist() == [50] * threads + [0] * (8 - threads)
    assert found[8 : 8 + threads].tolist() == [threads] * threads
    assert four_threads.workers == threads - 1


@pytest.mark.parametrize("threads", [2, 4])
def test_workers_compute_parts_at_the_same_time(four_threads: pool.Pool, threads: int) -> None:
    """No part of `meet` ends before all have begun: only as many threads can do that."""
    for _ in range(20):
        found = cells()
        bind("meet", found, threads)(threads)
        assert found[0] == threads


def test_never_more_parts_than_the_pool_has_room_for(four_threads: pool.Pool) -> None:
    found = cells(32)
    bind("count", found, threads=7)(1)
    assert found[:8].tolist() == [1] * 4 + [0] * 4


def test_programs_of_fewer_and_more_threads_take_turns(four_threads: pool.Pool) -> None:
    found = {threads: cells() for threads in (1, 2, 3, 4)}
    runs = [bind("count", found[t], threads=t) for t in found]
    for _ in range(200):
        for run in runs:
            run(1)
    for threads, seen in found.items():
        assert seen[:8].tolist() == [200] * threads + [0] * (8 - threads)


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_an_epoch_begins_when_all_parts_of_the_last_are_done(
    four_threads: pool.Pool, threads: int
) -> None:
    found = cells()
    run = bind("phases", found, threads=threads, shared=[True] * 600)
    run(0)
    run(0)
    assert found[:threads].tolist() == [598] * threads
    assert found[8] == 0
    assert found[9] == threads


def test_the_caller_alone_computes_what_is_not_shared(four_threads: pool.Pool) -> None:
    found = cells()
    run = bind("count", found, threads=4, shared=[False, True, False, True, False])
    for _ in range(50):
        run(1)
    assert found[:4].tolist() == [5 * 50, 2 * 50, 2 * 50, 2 * 50]
    assert found[8:12].tolist() == [1, 4, 4, 4]


def test_a_late_run_goes_on_alone(four_threads: pool.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first epoch is shared, and ends after the deadline, which is long gone: 0 ns."""

    def at_once(choice: Choice) -> None:
        choice._set("deadline", 0)
        choice._set("threads", 4)

    monkeypatch.setattr(Choice, "review", at_once)
    found = cells()
    bind("count", found, threads=4, shared=[True] * 5)(1)
    assert found[:4].tolist() == [5, 1, 1, 1]
    assert found[8:12].tolist() == [1, 4, 4, 4]


def test_a_run_after_a_pause_is_alone_and_not_reviewed(
    four_threads: pool.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pause is longer than -1 ns; the first run is reviewed before that is known."""
    reviews = []

    def review(choice: Choice) -> None:
        reviews.append(choice)
        choice._set("threads", 4)
        choice._set("longest_pause", -1)

    monkeypatch.setattr(Choice, "review", review)
    found = cells()
    run = bind("count", found, threads=4)
    for _ in range(3):
        run(1)
    assert len(reviews) == 1
    assert found[:4].tolist() == [3, 1, 1, 1]


def test_workers_that_sleep_wake(four_threads: pool.Pool) -> None:
    bind("meet", cells(), threads=4)(4)
    wait_until(lambda: all(asleep(four_threads)))
    bind("meet", cells(), threads=4)(4)


def test_a_caller_that_sleeps_wakes(four_threads: pool.Pool) -> None:
    """It has computed its part, and the worker waits, far longer than anyone stays awake."""
    found = cells()
    caller = threading.Thread(target=bind("wait_beside", found, threads=2), args=(0,))
    caller.start()
    wait_until(lambda: bool(four_threads._memory[196]))
    found[1] = 1
    caller.join(60)
    assert not caller.is_alive()
    assert found[0] == 2


def asleep(workers: pool.Pool) -> list[bool]:
    return [
        bool(workers._memory[pool_ir.offset_of(tid) + pool_ir.RECORD["asleep"][1]])
        for tid in (1, 2, 3)
    ]


def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.001)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("estimate", ESTIMATES)
def test_subnormal_numbers_are_numbers_on_every_thread(
    four_threads: pool.Pool, threads: int, estimate: float
) -> None:
    found = np.array([SUBNORMAL] * 4 + [1] * 4, np.float32)
    bind("halve", found, threads=threads, estimate=estimate)(4)
    assert found[4 : 4 + threads].tolist() == [SUBNORMAL / 2] * threads


SET_MODE = """\
declare void @llvm.x86.sse.ldmxcsr(ptr)
define void @set_mode(i32 %mode) {
  %place = alloca i32
  store i32 %mode, ptr %place
  call void @llvm.x86.sse.ldmxcsr(ptr %place)
  ret void
}"""


@pytest.mark.needs("x86-64")
@pytest.mark.parametrize("threads", [1, 4])
def test_the_mode_of_another_library_changes_nothing(four_threads: pool.Pool, threads: int) -> None:
    library = load(SET_MODE, ["set_mode"], host())
    set_mode = ctypes.CFUNCTYPE(None, ctypes.c_int32)(library.address("set_mode"))
    found = np.array([SUBNORMAL] * 4 + [1] * 4, np.float32)
    run, outside = bind("halve", found, threads=threads), np.array([SUBNORMAL], np.float32)
    set_mode(0x9FC0)  # subnormal operands and results are zero
    try:
        run(4)
        np.multiply(outside, np.float32(0.5), out=outside)
    finally:
        set_mode(0x1F80)
    assert found[4 : 4 + threads].tolist() == [SUBNORMAL / 2] * threads
    assert outside.tolist() == [0]  # it was left as it was


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_a_long_run_alone_releases_the_interpreter(
    four_threads: pool.Pool, estimate: float
) -> None:
    """Another thread counts whenever it gets the interpreter's lock, and gives it back."""
    counted, done = [0], threading.Event()

    def count() -> None:
        while not done.is_set():
            counted[0] += 1
            time.sleep(0)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # nobody else gives the lock up
    other = threading.Thread(target=count)
    other.start()
    try:
        wait_until(lambda: counted[0] > 0)
        run = bind("phases", cells(), threads=4, shared=[True] * 600, estimate=estimate)
        run(0)  # which starts the workers, and waits for them
        while True:
            before = counted[0]
            run(0)
            released = counted[0] > before
            if released or estimate < UNLOCKED:
                break
    finally:
        done.set()
        sys.setswitchinterval(interval)
        other.join()
    assert released == (estimate >= UNLOCKED)


def test_eight_threads_share_one_pool(four_threads: pool.Pool) -> None:
    def work(_: int) -> NDArray[np.int64]:
        found = cells()
        run = bind("count", found, threads=4, shared=[True] * 3)
        for _ in range(50):
            run(1)
        return found

    with ThreadPoolExecutor(8) as executor:
        for found in executor.map(work, range(8)):
            shared = found[1] // 3  # else all epochs are one call
            assert found[0] == 3 * shared + 50 - shared
            assert found[1:4].tolist() == [3 * shared] * 3


def test_a_caller_who_finds_the_workers_taken_runs_alone(four_threads: pool.Pool) -> None:
    held, found = cells(), cells()
    first = threading.Thread(target=bind("wait", held, threads=2), args=(0,))
    first.start()
    wait_until(lambda: bool(held[0] == 2))
    run = bind("count", found, threads=2)
    run(1)
    assert found[:2].tolist() == [1, 0]
    held[1] = 1
    first.join()
    run(1)
    assert found[:2].tolist() == [2, 1]


def test_other_threads_run_while_a_long_program_does(four_threads: pool.Pool) -> None:
    held = cells()
    caller = threading.Thread(target=bind("wait", held), args=(0,))
    caller.start()
    wait_until(lambda: bool(held[0]))
    held[1] = 1  # by this thread, which the program waits for
    caller.join()


def test_a_closed_pool_leaves_the_callers_thread(four_threads: pool.Pool) -> None:
    found = cells()
    run = bind("count", found, threads=4)
    run(1)
    workers = list(four_threads._threads.values())
    four_threads.close()
    four_threads.close()
    assert not any(thread.is_alive() for thread in workers)
    run(1)
    assert found[:4].tolist() == [2, 1, 1, 1]
    assert found[8] == 1  # and in one part


def test_no_thread_can_be_started(four_threads: pool.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    found = cells()
    run = bind("count", found, threads=4)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    run(1)
    assert found[:4].tolist() == [1, 1, 1, 1]  # by the caller
    assert four_threads.workers == 0


def test_an_interrupted_start_of_a_worker_is_done_again(
    four_threads: pool.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the thread runs by then or not: a second one of its number does no harm."""
    start, found = threading.Thread.start, cells()

    def interrupted(thread: threading.Thread, *, before: bool = False) -> None:
        if not before:
            start(thread)
        raise KeyboardInterrupt

    run = bind("count", found, threads=4)
    for before in (True, False, True, False):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", partialmethod(interrupted, before=before))
            with pytest.raises(KeyboardInterrupt):
                run(1)
    for _ in range(100):
        run(1)
    assert found[:4].tolist() == [100] * 4
    bind("meet", cells(), threads=4)(4)


def test_a_call_takes_whole_numbers(four_threads: pool.Pool) -> None:
    run = bind("count", cells())
    with pytest.raises(TypeError):
        run("32")  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        run(2**80)
    run(-1)


def test_a_call_keeps_alive_what_it_needs(four_threads: pool.Pool) -> None:
    found = cells()
    run = bind("count", found)
    for _ in range(20):  # other arrays and code, where the freed would have been
        np.ones(16, np.uint64)
        run(1)
    assert found[0] == 20


def script(text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python on a text that has `run` and `found`: `count` on four threads."""
    head = (
        "import os, sys, threading, time\n"
        "from graphc.backends.native import pool\n"
        "from tests.backends.native.small_programs import small_programs, table_of\n"
        "from tests.backends.native.test_pool import cells\n"
        "from tests.backends.native.shared_runs import shared_runs\n"
        "sharing = shared_runs(4)\n"
        "sharing.__enter__()\n"
        "found = cells()\n"
        "library = small_programs()\n"
        "run = pool.bind(library, 'count', table_of(found), threads=4)\n"
    )
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", head + text],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_forked_child_starts_its_own_workers() -> None:
    done = script(
        "run(1)\n"
        "if child := os.fork():\n"
        "    run(1)\n"
        "    _, status = os.waitpid(child, 0)\n"
        "    assert status == 0, status\n"
        "else:\n"
        "    assert pool.pool().workers == 0\n"
        "    run(1)\n"
        "    assert pool.pool().workers == 3\n"
        "assert found.tolist()[:4] == [2] * 4, found\n"
    )
    assert done.returncode == 0, done.stderr


def test_a_fork_while_the_workers_are_busy() -> None:
    done = script(
        "held = cells()\n"
        "wait = pool.bind(library, 'wait', table_of(held), threads=4)\n"
        "caller = threading.Thread(target=wait, args=(0,))\n"
        "caller.start()\n"
        "while held[0] < 4: time.sleep(0.001)\n"
        "child = os.fork()\n"
        "run(1)\n"
        "if not child:\n"
        "    os._exit(found.tolist()[:4] != [1] * 4)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert found.tolist()[:4] == [1, 0, 0, 0]\n"
        "held[1] = 1\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.one_in(6)
@pytest.mark.parametrize(
    "end",
    [
        "",
        "time.sleep(0.05)",  # the workers sleep
        "sys.exit(0)",
        "threading.Thread(target=lambda: [run(1) for _ in iter(int, 1)], daemon=True).start()",
        "import atexit; atexit.register(run, 1)",
    ],
)
def test_the_interpreter_ends_in_peace(end: str) -> None:
    done = script(f"run(1)\n{end}\n")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("triple", "words"),
    [
        ("x86_64-unknown-linux-gnu", ("i64 202,", "ldmxcsr", "sse2.pause")),
        ("aarch64-unknown-linux-gnu", ("i64 98,", "set.fpcr(i64 0)", "aarch64.hint")),
        ("arm64-apple-darwin23", ("__ulock_wait", "set.fpcr(i64 0)", "aarch64.hint")),
    ],
)
def test_the_text_follows_the_machine(triple: str, words: tuple[str, ...]) -> None:
    text = pool_ir.pool_ir(Target(triple, "generic", "", 128))
    for word in words:
        assert word in text
