"""Ranks as processes: a net that can be told to fail, and how a command is run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gc
from tests.extras import program

ROOT = Path(__file__).resolve().parents[3]
MPIEXEC = program("mpiexec", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

NET = """
import os
import signal
import time
from pathlib import Path

import graphc as gc
from graphc.runtime.distributed.watcher import rank_in
from graphc.runtime.executor import Executor


def net():
    net = gc.Net("net")
    x, y = net.input("x", (gc.N, 20)), net.input("y", (gc.N,), dtype="int64")
    h = gc.dropout(gc.relu(gc.affine(x, 30)), keep_prob=0.8)
    net.output("scores", gc.affine(h, 5, name="scores"))
    net.loss("loss", gc.softmax_loss(net["scores"], y))
    fail()
    return net


def fail():
    \"\"\"Once, on the rank and at the step that PLANTED names, 0 for here: "kill 1 30 FILE".\"\"\"
    what, rank, at, marker = os.environ.get("PLANTED", "none 0 0 -").split()
    if what == "none" or (rank_in(os.environ) or "0") != rank:
        return
    step, steps = Executor.step, [0]

    def planted():
        if steps[0] == int(at) and not Path(marker).exists():
            Path(marker).touch()
            if what == "mark":
                return
            if what == "raise":
                raise ZeroDivisionError("planted")
            if what == "sleep":
                time.sleep(1000)
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[what])

    def planted_step(*args, **feeds):
        steps[0] += 1
        planted()
        return step(*args, **feeds)

    planted()
    Executor.step = planted_step
"""


@dataclass(frozen=True)
class Ended:
    """How a command has ended, and what it said."""

    status: int
    out: str
    err: str


def prepare(folder: Path) -> None:
    """A net and data for it."""
    (folder / "net.py").write_text(NET)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 5, 400)
    x = (rng.normal(size=(5, 20))[y] + rng.normal(size=(400, 20))).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=y)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", **more}


def graphc(folder: Path, *words: str, before: tuple[str, ...] = (), **more: str) -> Ended:
    """Run `graphc` there; `before` stands before the Python."""
    command = [*before, sys.executable, "-m", "graphc", *words]
    process = subprocess.run(
        command, cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=100
    )
    return Ended(process.returncode, process.stdout, process.stderr)


def ranks_of(folder: Path) -> list[int]:
    """The processes of ranks that work in a folder, in the order in which they were started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (path / "cmdline").read_bytes().split(b"\0")
            if (path / "cwd").readlink() == folder and words[1:4] == [b"-m", b"mpi4py", b"-m"]:
                found.append(int(path.name))
    return sorted(found)


def running(folder: Path) -> list[str]:
    """The processes that are left in a folder, a moment later."""
    time.sleep(0.5)
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            if path.readlink() == folder:
                found.append(path.parent.name)
    return found


def train_words(out: str, *more: str) -> tuple[str, ...]:
    """Fifty steps."""
    data = ("--data", "data.npz", "--epochs", "5", "--batch", "32", "--validation", "0.2")
    return ("train", "net.py:net", *data, "--out", out, *more)


def state(path: Path) -> dict[str, Any]:
    return dict(gc.load(path).state)


def bits(path: Path) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in state(path).items()}
