"""One side in a process of its own: build, check, then time turns as they are asked for.

The questions come as lines of JSON on standard input, the answers go to standard output.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

import numpy as np

from tests.tools.benchmarks.peers import reference
from tests.tools.benchmarks.peers.outline import batches, outline
from tests.tools.benchmarks.peers.sides import side
from tests.tools.benchmarks.peers.sides.bound_side import Bound
from tests.tools.benchmarks.peers.sides.side import Side, Unsupported
from tests.tools.benchmarks.peers.workloads import EXPORTED, WORKLOADS

TOLERANCE, OF_LARGEST = {24: 1e-4, 8: 5e-2}, {24: 1e-5, 8: 2e-2}
"""By a side's bits: how far losses and scores may be from float64, and those of networks."""
WARM_SECONDS, SINGLE_POOL = 0.3, 64
LONG_MICROSECONDS = 200

Answer = dict[str, Any]
Turn = Callable[[float, float], list[float]]
"""The figures of a turn of so many seconds, with a period or 0; see `Timed`."""


class Wrong(Exception):
    """A side that computes something else; it is not timed."""


class Timed:
    """Something that can be called with each of a pool of arguments, again and again.

    Short calls are timed a whole pool at once, long ones one by one.
    """

    def __init__(self, call: Callable[[Any], Any], pool: list[Any]) -> None:
        self._call = call
        self._parts = [[argument] for argument in pool]
        if self.turn(WARM_SECONDS) < LONG_MICROSECONDS:
            self._parts = [pool]

    def __call__(self, seconds: float, period: float) -> list[float]:
        """The figures of a turn: a median, or with a period all calls."""
        return self.paced(seconds, period) if period else [self.turn(seconds)]

    def paced(self, seconds: float, period: float) -> list[float]:
        """Microseconds of each call; one is due every `period` seconds."""
        found: list[float] = []
        due = perf_counter()
        end = due + seconds
        for argument in cycle([argument for part in self._parts for argument in part]):
            due += period
            sleep(max(0.0, due - perf_counter()))
            start = perf_counter()
            self._call(argument)
            found.append((perf_counter() - start) * 1e6)
            if due > end:
                break
        return found

    def turn(self, seconds: float) -> float:
        """Microseconds a call, the median over this time."""
        call, found = self._call, []
        for argument in self._parts[0]:
            call(argument)
        start = last = perf_counter()
        for part in cycle(self._parts):
            for argument in part:
                call(argument)
            now = perf_counter()
            found.append((now - last) / len(part) * 1e6)
            last = now
            if now - start > seconds:
                return median(found)
        raise AssertionError("a pool has at least one batch")


def trained(made: Side, name: str) -> tuple[Timed, Answer]:
    """A step, compared with float64 without dropout, and what it took to build."""
    workload, parameters = WORKLOADS[name], outline(name).parameters
    pool = batches(name, workload.batch, workload.pool)
    arguments = [made.feeds(feeds) for feeds in pool]
    start = perf_counter()
    step = made.train(workload, parameters, dropout=False)
    found = [step(arguments[0])]
    seconds = perf_counter() - start
    found += [step(arguments[0]) for _ in range(reference.STEPS - 1)]
    wanted = reference.losses(name, pool[0])
    error = max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(found, wanted, strict=True))
    if workload.keep is not None:
        start = perf_counter()
        step = made.train(workload, parameters, dropout=True)
        masked = step(arguments[0])
        seconds = max(seconds, perf_counter() - start)
        if not 1e-4 < abs(masked - wanted[0]) < 1:
            raise Wrong(f"dropout turns the first loss {wanted[0]} into {masked}")
    return Timed(step, arguments), {"error": error, "build_seconds": seconds}


def inferring(made: Side, name: str, rows: int) -> tuple[Timed, Answer]:
    """Inference at a batch, compared with float64, and what it took to build."""
    workload, parameters = WORKLOADS[name], outline(name).parameters
    pool = batches(name, rows, SINGLE_POOL if rows == 1 else workload.pool, inference=True)
    arguments = [made.feeds(feeds) for feeds in pool]
    start = perf_counter()
    infer = made.infer(workload, parameters, rows)
    found = np.array(infer(arguments[0]))
    seconds = perf_counter() - start
    wanted = reference.scores(name, pool[0])
    error = float(np.abs(found - wanted).max() / max(1.0, float(np.abs(wanted).max())))
    return Timed(infer, arguments), {"error": error, "build_seconds": seconds}


def loading(made: Side, path: Path, rows: int) -> tuple[Timed, Answer]:
    """An exported network at a batch, compared with float64, and what it took to build."""
    with np.load(path.with_suffix(".npz")) as file:
        x, wanted = file["x"], file["y"][:rows]
    pool = [{"x": x[i : i + rows]} for i in range(0, len(x) - rows + 1, rows)]
    start = perf_counter()
    infer = made.load(path, rows)
    found = np.array(infer(pool[0]))
    seconds = perf_counter() - start
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if not error < OF_LARGEST[made.bits]:
        raise Wrong(f"it differs from float64 by {error:.1e} of the largest output")
    return Timed(infer, pool), {"error": error, "build_seconds": seconds}


def prepared(
    name: str, threads: int, workload: str, rows: int, models: str = ""
) -> tuple[Turn, Answer]:
    """The side for a workload, ready for turns; `rows` 0 is training."""
    made = side(name, threads)
    answer: Answer = {"versions": made.versions()}
    if isinstance(made, Bound):
        rate = made.flops_a_second
        return lambda seconds, period: [rate(seconds)], answer
    if workload in EXPORTED:
        timed, more = loading(made, Path(models) / workload, rows)
        return timed, {**answer, **more}
    kind = WORKLOADS[workload].kind
    if kind not in made.kinds:
        raise Unsupported(f"it has no nets of {kind} here")
    timed, more = inferring(made, workload, rows) if rows else trained(made, workload)
    if not more["error"] < TOLERANCE[made.bits]:
        raise Wrong(f"it differs from float64 by {more['error']:.1e}")
    return timed, {**answer, **more}


def memory_mb() -> float:
    """The most memory that this process had.

    Linux counts it for the program; `getrusage` counts that of the process it was forked from, too.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(argv: list[str]) -> int:
    """Answer questions until there are none."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a framework prints goes elsewhere

    def say(answer: Answer) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    name, threads, workload, rows, models = argv
    try:
        turn, answer = prepared(name, int(threads), workload, int(rows), models)
    except (Unsupported, Wrong) as reason:
        say({"skipped": str(reason)})
        return 0
    gc.collect()
    gc.freeze()
    say({**answer, "memory_mb": memory_mb()})
    for line in sys.stdin:
        say({"values": turn(*map(float, line.split()))})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
