"""Both backends give the same bytes again: in a new executor, another process, from a jit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.backends.native import cache
from tests.extras import where
from tests.reproducibility.workloads import SMALLER, executor, printed, trained
from tests.tools.benchmarks.peers.workloads import Workload

ROOT = Path(__file__).parents[2]
STEPS = 6
BACKENDS = ["numpy", where("native")]

IN_ANOTHER_PROCESS = """
from tests.reproducibility.workloads import SMALLER, executor, printed
workload = SMALLER[{name!r}]
print(printed(lambda: executor(workload, backend={backend!r}), workload, {steps}))
"""


def elsewhere(name: str, backend: str, **environ: str) -> str:
    """The digest of training in a new process."""
    return run(IN_ANOTHER_PROCESS.format(name=name, backend=backend, steps=STEPS), **environ)


def run(code: str, **environ: str) -> str:
    """What code prints in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.one_in(5)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SMALLER)
def test_again(name: str, backend: str) -> None:
    """A plan made anew, on arrays that lie elsewhere in memory."""
    workload = SMALLER[name]
    wanted = trained(executor(workload, backend=backend), workload, STEPS)
    hindrance = np.ones(12345)
    assert trained(executor(workload, backend=backend), workload, STEPS) == wanted
    assert hindrance.all()


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_again_in_another_process(backend: str) -> None:
    here = digest(SMALLER["seed"], backend)
    assert {elsewhere("seed", backend, PYTHONHASHSEED=seed) for seed in ("1", "2")} == {here}


GRAPH_OF_LOOPS = """
import graphc as gc
from tests.check.loops import nested
print(gc.compile(nested(), batch=4, backend="numpy").programs["grad"].graph)
"""


@pytest.mark.slow
def test_loops_have_the_same_graph_in_another_process() -> None:
    """Whatever the order of sets there."""
    assert len({run(GRAPH_OF_LOOPS, PYTHONHASHSEED=seed) for seed in ("1", "2", "3")}) == 1


@pytest.mark.slow
@pytest.mark.needs("native")
def test_code_from_the_cache(tmp_path: Path) -> None:
    """The first process compiles, the second one loads; nothing in the folder changes then."""
    folder = {"GRAPHC_CACHE": str(tmp_path)}
    fresh = elsewhere("seed", "native", **folder)
    made = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    assert made
    assert elsewhere("seed", "native", **folder) == fresh
    assert {path.name: path.stat().st_ino for path in tmp_path.iterdir()} == made


@pytest.mark.slow
@pytest.mark.needs("native")
def test_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be made: every process compiles."""
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    monkeypatch.setenv("GRAPHC_CACHE", str(nowhere / "folder"))
    assert cache.cached("0" * 64) is None
    here = digest(SMALLER["seed"], "native")
    assert elsewhere("seed", "native", GRAPHC_CACHE=str(nowhere / "folder")) == here


@pytest.mark.one_in(5)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SMALLER)
def test_a_model_that_was_saved_half_way(name: str, backend: str, tmp_path: Path) -> None:
    workload = SMALLER[name]
    straight = executor(workload, backend=backend)
    trained(straight, workload, STEPS)
    wanted = trained(straight, workload, STEPS)
    half = executor(workload, backend=backend)
    trained(half, workload, STEPS)
    path = gc.save(tmp_path / "half.gc", half)
    assert trained(gc.load(path), workload, STEPS) == wanted


def digest(workload: Workload, backend: str) -> str:
    return printed(lambda: executor(workload, backend=backend), workload, STEPS)
