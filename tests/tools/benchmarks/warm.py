"""The start of a process: the memory that it takes, and how long its first call is.

  env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python -m tests.tools.benchmarks.warm [WORKLOAD ...]

Each line is about processes of their own, which train a net or infer: with native code that is
compiled ("cold"), with native code from the cache ("warm"), and with NumPy.  It says the largest
resident memory in MB, and milliseconds: to import graphc after NumPy, to compile the plan, to make
the executor, and by how much the first call is longer than later ones.  Of the processes of a kind
each figure is the least.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

PROCESSES = 5
"""The processes of each kind but the cold one."""
LATER = 40
"""The calls after the first."""
FIGURES = ("MB", "import", "compile", "executor", "first - later")
ROOT = Path(__file__).parents[3]


def main() -> None:
    """Print a line for each workload, use and kind of process."""
    print(f"{'':<24}" + "".join(f"{name:>15}" for name in FIGURES))
    for name in sys.argv[1:] or ("tiny", "mnist"):
        for use in ("train", "infer"):
            with tempfile.TemporaryDirectory() as cache:
                for kind in ("cold", "warm", "numpy"):
                    found = least(name, use, kind, cache)
                    print(f"{name:<10}{use:<7}{kind:<7}", *(f"{x:>14.1f}" for x in found))


def least(name: str, use: str, kind: str, cache: str) -> list[float]:
    """Return the least of each figure of some processes."""
    backend = "numpy" if kind == "numpy" else "native"
    text = f"from tests.tools.benchmarks.warm import start; start({name!r}, {use!r}, {backend!r})"
    environ = {**os.environ, "GRAPHC_CACHE": cache, "PYTHONPATH": str(ROOT)}
    runs = []
    for _ in range(1 if kind == "cold" else PROCESSES):
        done = subprocess.run([sys.executable, "-c", text], env=environ, stdout=subprocess.PIPE)
        runs.append(json.loads(done.stdout))
    return [min(figures) for figures in zip(*runs, strict=True)]


def start(name: str, use: str, backend: str) -> None:
    """Train or infer as a program does that begins, and print the figures."""
    import numpy as np

    begun = perf_counter()
    import graphc as gc

    imported = perf_counter() - begun
    from graphc.ir.tensor_type import dim_at
    from tests.tools.benchmarks.peers.sides.graphc_side import Declare
    from tests.tools.benchmarks.peers.workloads import WORKLOADS

    workload, made = WORKLOADS[name], Declare(dropout=True)
    workload.declare(made)
    begun = perf_counter()
    sgd = gc.SGD(lr=workload.lr, momentum=0.9)
    plan = gc.compile(made.net, batch=workload.batch, optimizer=sgd, backend=backend)
    compiled = perf_counter() - begun
    begun = perf_counter()
    ex = gc.Executor(plan, seed=0)
    ready = perf_counter() - begun
    program = plan.programs["step" if use == "train" else "infer"]
    feeds = {}
    for feed in program.feeds:
        shape = (dim_at(dim, workload.batch) for dim in program.buffers[feed].type.shape)
        feeds[feed] = np.zeros(tuple(shape), program.buffers[feed].type.dtype)
    run, times = (ex.step if use == "train" else ex.forward), []
    for _ in range(1 + LATER):
        begun = perf_counter()
        run(feeds)
        times.append(perf_counter() - begun)
    seconds = imported, compiled, ready, times[0] - median(times[1:])
    print(json.dumps([largest(), *(1e3 * each for each in seconds)]))


def largest() -> float:
    """Return the largest resident memory of this process so far, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (size,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(size) / 1024


if __name__ == "__main__":
    main()
