"""Many threads and many steps: the same bits, and no more memory."""

from __future__ import annotations

import gc as collector
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from tests.backends.native.nets import NETS, feeds_of
from tests.extras import where

BACKENDS = ["numpy", where("native")]
BATCH = 16
THREADS = 24


def plan(backend: str) -> gc.Plan:
    net = NETS["seed_layers"]("float32")
    return gc.compile(net, batch=BATCH, optimizer=gc.SGD(lr=0.01, momentum=0.9), backend=backend)


def trace(ex: gc.Executor, runs: int) -> list[bytes]:
    """Bytes of losses and outputs of steps on changing batches, and of the state after them."""
    net = NETS["seed_layers"]("float32")
    batches = [feeds_of(net, 1 + seed % BATCH, seed) for seed in range(8)]
    found = []
    for i in range(runs):
        loss = ex.step(batches[i % 8])
        scores = ex.forward(batches[i % 8])["scores"]
        found.append(np.float64(loss).tobytes() + scores.tobytes())
    return [*found, *(array.tobytes() for array in ex.snapshot().values())]


def run_in_threads(backend: str, runs: int) -> None:
    shared = plan(backend)
    wanted = trace(gc.Executor(shared, seed=2), runs)
    start, wrong = threading.Barrier(THREADS), list(range(THREADS))

    def work(number: int) -> None:
        ex = gc.Executor(shared, seed=2)
        start.wait()
        if trace(ex, runs) == wanted:
            wrong.remove(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_on_one_plan_equal_a_serial_run(backend: str) -> None:
    run_in_threads(backend, 20)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_many_runs_of_threads_on_one_plan_equal_a_serial_run(backend: str) -> None:
    run_in_threads(backend, 1000)


STEPS = """
import sys
from tests.runtime.test_long_runs import memory_of_steps
print(*memory_of_steps(sys.argv[1], 10_000))
"""


def resident() -> int:
    """The bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def memory_of_steps(backend: str, steps: int) -> tuple[int, int]:
    """By how many bytes Python's memory and the process have grown in so many steps."""
    ex = gc.Executor(plan(backend))
    trace(ex, 200)
    collector.collect()
    tracemalloc.start()
    net = NETS["seed_layers"]("float32")
    batches = [feeds_of(net, 1 + seed % BATCH, seed) for seed in range(8)]
    for i in range(100):
        ex.step(batches[i % 8])
    traced, process = tracemalloc.get_traced_memory()[0], resident()
    for i in range(steps):
        ex.step(batches[i % 8])
    collector.collect()
    grown = tracemalloc.get_traced_memory()[0] - traced, resident() - process
    tracemalloc.stop()
    return grown


@pytest.mark.slow
@pytest.mark.needs("Linux")
@pytest.mark.parametrize("backend", BACKENDS)
def test_ten_thousand_steps_take_no_more_memory(backend: str) -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", STEPS, backend], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    python, process = map(int, done.stdout.split())
    assert python < 4096, f"{python} bytes of Python's"
    assert process < 512 * 1024, f"{process} bytes of the process"
