"""The processes of a comparison: start them one after the other, then ask them in turn."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.tools.benchmarks.peers.sides import SIDES

ROOT = Path(__file__).resolve().parents[4]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
MADE_FOR_OTHERS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Settings that would slow NumPy down."""


class Failed(Exception):
    """A process that gave no answer, and why."""


@dataclass(frozen=True)
class Task:
    """A side with a number of threads, a workload, and rows of inference; 0 is training."""

    side: str
    threads: int
    workload: str
    rows: int = 0
    models: str = ""
    """The folder of exported networks."""

    @property
    def text(self) -> str:
        """As a line calls it."""
        return f"{self.side} on {self.threads} thread{'s' if self.threads > 1 else ''}"


def python_for(side: str, pythons: tuple[str, ...]) -> str | None:
    """The first interpreter that has the side's package."""
    return python_with(SIDES[side].package, pythons)


@cache
def python_with(package: str, pythons: tuple[str, ...]) -> str | None:
    """The first interpreter that has a package."""
    for python in pythons:
        if python == sys.executable:
            found = importlib.util.find_spec(package) is not None
        else:
            code = f"import importlib.util as u, sys; sys.exit(u.find_spec({package!r}) is None)"
            run = subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, check=False)
            found = run.returncode == 0
        if found:
            return python
    return None


def export(name: str, folder: Path, pythons: Sequence[str]) -> str | None:
    """Write the files of an exported network unless they are there; why not, if none can."""
    if (folder / f"{name}.npz").exists():
        return None
    python = python_with("torchvision", tuple(pythons))
    if python is None:
        return "torchvision is not installed"
    folder.mkdir(parents=True, exist_ok=True)
    command = [python, "-m", "tests.tools.benchmarks.peers.exported", name, str(folder.resolve())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes beside this one that never rest."""
    loop = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(loop) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


class Worker:
    """A side at work in a process of its own; use it as a context."""

    def __init__(self, task: Task, python: str) -> None:
        self.task = task
        self._folder = tempfile.TemporaryDirectory(prefix="graphc-peers-")
        self._errors = open(Path(self._folder.name) / "errors", "w+")  # noqa: SIM115
        words = (task.side, task.threads, task.workload, task.rows, task.models)
        self._process = subprocess.Popen(
            [*_pinned(task), python, "-m", "tests.tools.benchmarks.peers.worker", *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env=_environment(task, self._folder.name),
            text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()
        self._folder.cleanup()

    def ask(self, seconds: float, period: float = 0) -> list[float]:
        """The figures of one turn; with a period those of single calls, one every so often."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds} {period}\n")
        self._process.stdin.flush()
        return list(self.answer(60 + 20 * seconds)["values"])

    def answer(self, patience: float) -> dict[str, Any]:
        """The next line; Failed when there is none in time."""
        stream = self._process.stdout
        assert stream is not None
        if not select.select([stream], [], [], patience)[0]:
            raise Failed(f"no answer in {patience:.0f} s")
        line = stream.readline()
        if not line:
            raise Failed(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return lines[-1] if lines else "it ended without a word"


def start(
    tasks: Sequence[Task], pythons: Sequence[str], patience: float
) -> tuple[list[tuple[Worker, dict[str, Any]]], dict[Task, str]]:
    """The workers that are ready, with what they said, and why others are not.

    One is started after the other, so that building disturbs no one.
    """
    ready: list[tuple[Worker, dict[str, Any]]] = []
    missing: dict[Task, str] = {}
    for task in tasks:
        python = python_for(task.side, tuple(pythons))
        if python is None:
            missing[task] = f"{SIDES[task.side].package} is not installed"
            continue
        worker = Worker(task, python)
        try:
            said = worker.answer(patience)
        except Failed as reason:
            said = {"failed": str(reason)}
        if "failed" in said or "skipped" in said:
            worker.__exit__()
            missing[task] = said.get("failed") or said["skipped"]
        else:
            ready.append((worker, said))
    return ready, missing


def _environment(task: Task, folder: str) -> Mapping[str, str]:
    """Threads, no settings for others, and caches that start empty unless inductor's is given."""
    kept = {k: v for k, v in os.environ.items() if k not in MADE_FOR_OTHERS}
    return {
        "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
        **kept,
        **dict.fromkeys(THREADS, str(task.threads)),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH")))),
        "PYTHONWARNINGS": "ignore",
        "XDG_CACHE_HOME": folder,
        "NUMBA_CACHE_DIR": f"{folder}/numba",
        "PYTENSOR_FLAGS": f"base_compiledir={folder}/pytensor",
        "JAX_PLATFORMS": "cpu",
    }


def _pinned(task: Task) -> list[str]:
    """JAX has no option for threads: one thread is one core."""
    if task.threads > 1 or not task.side.startswith("jax") or not hasattr(os, "sched_getaffinity"):
        return []
    return ["taskset", "-c", str(max(os.sched_getaffinity(0)))]
