"""What recording a run costs beside its steps.

    python -m tests.tools.benchmarks.recording

All times are medians of many single calls, the sides in turns, so that it matters little what
else the machine does.  A state is written every 1,000 steps, but not sooner than two seconds
after another, and less and less often after the first sixteen; the shares are those until then.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from graphc.train.history import Position
from graphc.train.record.journal import WHOLE
from graphc.train.record.recorder import SECONDS, Recorder
from graphc.train.user_data import training_source
from tests.reproducibility.workloads import executor
from tests.tools.benchmarks.peers.workloads import MAIN

CALLS = 400
RARE_CALLS = 25


@dataclass(frozen=True)
class Cost:
    """Seconds: of a step, of its record, of a whole digest, of a state; of begin and end."""

    step: float
    record: float
    whole: float
    state: float
    begin: float

    @property
    def added(self) -> float:
        """What recording adds to a step, as a part of it."""
        states = self.state / max(SECONDS, WHOLE * self.step)
        return (self.record + self.whole / WHOLE) / self.step + states


def measure(name: str, calls: int = CALLS) -> Cost:
    """The costs with a workload on one thread, and 25 MB of data at most."""
    workload = MAIN[name]
    chain = workload.chain
    assert chain is not None
    ex = executor(workload, threads=1)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8 * workload.batch, chain.sizes[0]), np.float32)
    source = training_source(ex, (x, rng.integers(0, chain.sizes[-1], len(x))), workload.batch, 0)
    _, feeds = next(iter(source.batches(1)))
    with tempfile.TemporaryDirectory() as folder:
        choices = {"seed": 0, "shuffle": True, "batch": workload.batch, "rows": len(x)}
        recorder = Recorder(Path(folder), ex, source, choices, None)
        at = Position(steps=1)
        begin = _seconds(lambda: recorder.begin(at))
        steps, records = [], []
        for _ in range(calls):
            steps.append(_seconds(lambda: ex.step(feeds)))
            records.append(_seconds(lambda: recorder.step(at, 0.5)))
        digest = recorder.digest
        wholes = [_seconds(digest.whole) for _ in range(RARE_CALLS)]
        states = [_seconds(lambda: recorder.end(at)) for _ in range(RARE_CALLS)]
        recorder.close()
    costs = (statistics.median(times) for times in (steps, records, wholes, states))
    return Cost(*costs, begin)


def _seconds(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def main() -> None:
    """Print a table of the workloads asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", default=["tiny", "mnist", "seed", "deep"])
    columns = ("step us", "record us", "whole ms", "state ms", "begin ms", "added")
    print(f"{'workload':<9}", *(f"{column:>10}" for column in columns))
    for name in parser.parse_args().workloads:
        c = measure(name)
        numbers = (c.step * 1e6, c.record * 1e6, c.whole * 1e3, c.state * 1e3, c.begin * 1e3)
        print(f"{name:<9}", *(f"{number:>10.1f}" for number in numbers), f"{c.added:>10.1%}")


if __name__ == "__main__":
    main()
