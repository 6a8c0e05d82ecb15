"""Native code gives the same bytes with any number of threads, on any width of vectors.

All of the benchmarks' nets at their full sizes, 100 steps with each of 1 to 8 threads:

    OPENBLAS_NUM_THREADS=1 python -m pytest -m campaign -n 0 tests/reproducibility
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import graphc as gc
from graphc.backends.native.target import WIDTHS, host
from tests.backends.native.shared_runs import shared_runs
from tests.reproducibility.workloads import SMALLER, batches, digests, executor, trained
from tests.tools.benchmarks.peers.workloads import MAIN, Workload

pytestmark = pytest.mark.needs("native")

THREADS = range(1, 9)


@pytest.fixture
def eight_threads() -> Iterator[None]:
    """The pool of a machine with eight cores, where every run is shared."""
    with shared_runs(8):
        yield


def check_threads(workload: Workload, steps: int) -> None:
    wanted = trained(executor(workload, backend="native", threads=1), workload, steps)
    for threads in THREADS[1:]:
        ex = executor(workload, backend="native", threads=threads)
        assert trained(ex, workload, steps) == wanted, f"{threads} threads"


@pytest.mark.one_in(6)
@pytest.mark.parametrize("name", SMALLER)
def test_one_to_eight_threads_on_smaller_nets(name: str, eight_threads: None) -> None:
    check_threads(SMALLER[name], steps=6)


@pytest.mark.campaign
@pytest.mark.parametrize("name", MAIN)
def test_one_to_eight_threads_on_all_workloads(name: str, eight_threads: None) -> None:
    check_threads(MAIN[name], steps=100)


@pytest.mark.one_in(5)
@pytest.mark.parametrize("name", SMALLER)
def test_gradients_with_one_to_eight_threads(name: str, eight_threads: None) -> None:
    """By themselves, where the update is not part of the product that gives them."""
    workload, found = SMALLER[name], []
    for threads in THREADS:
        ex = executor(workload, backend="native", threads=threads)
        outputs = ex.forward(next(batches(workload, 1)), train=True)
        gradients = {f"d_{name}": array for name, array in ex.backward().items()}
        found.append(digests({**outputs, **gradients}))
    assert all(one == found[0] for one in found)


@pytest.mark.one_in(5)
@pytest.mark.parametrize("name", SMALLER)
def test_any_width_of_vectors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    workload = SMALLER[name]
    wanted = trained(executor(workload, backend="native"), workload, 3)
    for bits in (bits for bits in WIDTHS if bits < host().bits):
        monkeypatch.setenv("GRAPHC_VECTOR_BITS", str(bits))
        assert host().bits == bits
        assert trained(executor(workload, backend="native"), workload, 3) == wanted, f"{bits} bits"


SPLITS = ((1,) * 24, (23, 1), (5, 16, 3), (8, 8, 8))


@pytest.mark.one_in(6)
@pytest.mark.parametrize("name", SMALLER)
def test_any_split_of_rows_at_inference(name: str) -> None:
    workload = SMALLER[name]
    ex = executor(workload, backend="native")
    for feeds in batches(workload, 2):
        ex.step(feeds)
    x = next(batches(workload, 1))["x"][:24]
    whole = ex.predict(x)
    for split in SPLITS:
        parts = np.split(x, np.cumsum(split)[:-1])
        outputs = [ex.forward(x=part)["output"] for part in parts]
        assert np.concatenate(outputs).tobytes() == whole.tobytes(), split
    small = gc.Executor(gc.compile(ex.plan.declared, batch=7, backend="native"), state=ex.state)
    assert small.predict(x).tobytes() == whole.tobytes()
