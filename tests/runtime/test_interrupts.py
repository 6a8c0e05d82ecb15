"""Interrupts, forks and missing threads in the midst of training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.extras import where

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = ["numpy", where("native")]

HEAD = """
import os, signal, sys, threading, time, warnings
import numpy as np
import graphc as gc
from tests.backends.native.nets import NETS, feeds_of

# A process of the background is born with interrupts ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
backend, threads = {backend!r}, {threads}
if threads > 1:
    from tests.backends.native.shared_runs import shared_runs
    sharing = shared_runs(threads)
    sharing.__enter__()
net = NETS["seed_layers"]("float32")
plan = gc.compile(net, batch=64, optimizer=gc.Adam(), backend=backend, threads=threads)
feeds = feeds_of(net, 64)
"""


def run(text: str, backend: str, threads: int = 1, seconds: float = 300) -> str:
    """What a process of its own prints."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "always",
            "-c",
            HEAD.format(backend=backend, threads=threads) + text,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


INTERRUPTED = """
def taken(ex):
    return {name: ex.state[name].tobytes() for name in ex.state}

plain = gc.Executor(plan)
states = [taken(plain)]
ex = gc.Executor(plan)
ex.step(feeds)
ex.state = plain.snapshot()
saved = plain.snapshot()
main = threading.main_thread().ident
rng = np.random.default_rng(0)
steps = broken = interrupts = 0

def interrupt(delay):
    begun.wait()
    time.sleep(delay)
    signal.pthread_kill(main, signal.SIGINT)

for _ in range(ROUNDS):
    begun = threading.Event()
    timer = threading.Thread(target=interrupt, args=(float(rng.uniform(0, 0.004)),))
    done = 0
    try:
        timer.start()
        while True:
            ex.step(feeds)
            done += 1
            begun.set()
    except KeyboardInterrupt:
        interrupts += 1
    timer.join()
    while len(states) <= done + 1:
        plain.step(feeds)
        states.append(taken(plain))
    try:
        ex.snapshot()
        assert taken(ex) in (states[done], states[done + 1]), "neither all of a step nor none"
        steps += done
    except gc.StateError as error:
        assert "failed half-way" in str(error), error
        broken += 1
    ex.state = saved  # and it runs again
print(interrupts == ROUNDS, steps > 0, broken, file=sys.stdout)
"""


def assert_interrupted(printed: str, backend: str) -> None:
    """A native step is one call, so it is made as a whole; one of NumPy's may say it is not."""
    every, whole, broken = printed.split()
    assert every == "True"
    if backend == "native":
        assert whole == "True"
        assert broken == "0"


@pytest.mark.one_in(2)
@pytest.mark.needs("POSIX")
@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_leaves_all_of_a_step_or_none_or_says_so(backend: str) -> None:
    printed = run("ROUNDS = 25\n" + INTERRUPTED, backend, threads=2 if backend == "native" else 1)
    assert_interrupted(printed, backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_thousand_interrupts(backend: str) -> None:
    printed = run("ROUNDS = 1000\n" + INTERRUPTED, backend, threads=2 if backend == "native" else 1)
    assert_interrupted(printed, backend)


ACCUMULATED = """
net = NETS["mlp"]("float32")
feeds = feeds_of(net, 8)
plan = gc.compile(
    net, batch=8, optimizer=gc.Adam(lr=0.01, accumulate=2), backend=backend, threads=threads
)

class Rings(Exception):
    pass

def ring(number, frame):
    raise Rings

def taken(ex):
    return tuple(ex.state[name].tobytes() for name in plan.state_nodes)

plain, ex = gc.Executor(plan), gc.Executor(plan)
first, states = plain.snapshot(), [taken(plain)]
signal.signal(signal.SIGALRM, ring)
rng = np.random.default_rng(0)
other = concurrent.futures.ThreadPoolExecutor(1)
broken = whole = 0
for _ in range(ROUNDS):
    ex.state = first
    done = 0
    try:
        signal.setitimer(signal.ITIMER_REAL, float(rng.uniform(1e-5, 2e-3)))
        while True:
            ex.step(feeds)
            done += 1
    except Rings:
        pass
    other.submit(ex.parameters.flat).result(20)
    while len(states) <= done + 1:
        plain.step(feeds)
        states.append(taken(plain))
    if ex.state.broken:
        broken += 1
    else:
        assert taken(ex) in states[done : done + 2], "neither all of a step nor none"
        whole += 1
print(broken + whole == ROUNDS, whole > 0, broken)
"""


@pytest.mark.slow
@pytest.mark.needs("POSIX")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_that_updates_what_is_accumulated_is_whole(backend: str) -> None:
    printed = run("import concurrent.futures\nROUNDS = 3000\n" + ACCUMULATED, backend)
    assert_interrupted(printed, backend)


FORKED = """
ex, alone = gc.Executor(plan, seed=3), gc.Executor(plan, seed=3)
wanted = [alone.step(feeds) for _ in range(12)]
assert [ex.step(feeds) for _ in range(4)] == wanted[:4]
child = os.fork()
found = [ex.step(feeds) for _ in range(8)]
if not child:
    os._exit(found != wanted[4:])
assert os.waitpid(child, 0)[1] == 0, "the child trains otherwise"
assert found == wanted[4:], "the parent trains otherwise"
print("same")
"""


@pytest.mark.slow
@pytest.mark.needs("POSIX")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_fork_in_the_midst_of_training(backend: str) -> None:
    """Parent and child both go on, with the same numbers."""
    assert run(FORKED, backend, threads=2 if backend == "native" else 1) == "same"


REFUSED = """
alone = gc.Executor(gc.compile(net, batch=64, optimizer=gc.Adam(), backend=backend, threads=1))
wanted = [alone.step(feeds) for _ in range(3)]

def refuse(thread):
    raise RuntimeError("can't start new thread")

threading.Thread.start = refuse
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    ex = gc.Executor(plan)
    found = [ex.step(feeds) for _ in range(3)]
assert found == wanted, "another result than one thread's"
print(len(caught) <= 1)
"""


@pytest.mark.slow
@pytest.mark.needs("native")
def test_threads_that_cannot_be_started_are_done_without() -> None:
    assert run(REFUSED, "native", threads=4) == "True"
