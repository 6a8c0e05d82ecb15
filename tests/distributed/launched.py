"""Ranks as processes: a net that can be told to fail, and how a command is run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gc

ROOT = Path(__file__).resolve().parents[2]
MPIEXEC = shutil.which(
    "mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
)
MISSING = MPIEXEC is None or find_spec("mpi4py") is None

NET = """
import os
import signal
import time
from pathlib import Path

import graphc as gc
from graphc.executor import Executor


def net():
    net = gc.Net("net")
    x, y = net.input("x", (gc.N, 20)), net.input("y", (gc.N,), dtype="int64")
    h = gc.dropout(gc.relu(gc.affine(x, 30)), keep_prob=0.8)
    net.output("scores", gc.affine(h, 5, name="scores"))
    net.loss("loss", gc.softmax_loss(net["scores"], y))
    fail()
    return net


def fail():
    \"\"\"Once, on the rank and at the step that PLANTED names: "kill 1 30 FILE".\"\"\"
    what, rank, at, marker = os.environ.get("PLANTED", "none 0 0 -").split()
    if what == "none" or os.environ.get("PMI_RANK", "0") != rank:
        return
    step, steps = Executor.step, [0]

    def planted(*args, **feeds):
        steps[0] += 1
        if steps[0] == int(at) and not Path(marker).exists():
            Path(marker).touch()
            if what == "raise":
                raise ZeroDivisionError("planted")
            if what == "sleep":
                time.sleep(1000)
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[what])
        return step(*args, **feeds)

    Executor.step = planted
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


def train_words(out: str, *more: str) -> tuple[str, ...]:
    """Fifty steps."""
    data = ("--data", "data.npz", "--epochs", "5", "--batch", "32", "--validation", "0.2")
    return ("train", "net.py:net", *data, "--out", out, *more)


def state(path: Path) -> dict[str, Any]:
    return dict(gc.load(path).state)


def bits(path: Path) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in state(path).items()}
