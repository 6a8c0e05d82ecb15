"""A comparison: for each workload all sides take turns, round after round."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.peers.outline import outline
from tests.benchmarks.peers.processes import Failed, Task, Worker, start
from tests.benchmarks.peers.workloads import WORKLOADS

SETTLE_SECONDS = 0.02
"""Between turns, in which the threads of the last side stop spinning."""


@dataclass(frozen=True)
class Options:
    """How much is measured, and with what."""

    sides: Sequence[str]
    threads: Sequence[int]
    rounds: int
    seconds: float
    pythons: Sequence[str]
    patience: float


@dataclass
class Row:
    """One side with a number of threads at one workload: microseconds, one a round."""

    side: str
    threads: int
    versions: str
    times: list[float] = field(default_factory=list)
    error: float | None = None
    build_seconds: float | None = None
    memory_mb: float = 0.0

    @property
    def median(self) -> float:
        """The figure that is quoted."""
        return median(self.times)


@dataclass
class Comparison:
    """All rows of a workload; `rows` 0 is training, else inference at that batch."""

    workload: str
    rows: int
    flops: int
    date: str = ""
    results: list[Row] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """As a table is headed."""
        if self.rows:
            return f"{self.workload}, inference at batch {self.rows}"
        return f"{self.workload}, training step at batch {WORKLOADS[self.workload].batch}"

    def best(self, side: str) -> Row | None:
        """The row of a side at its better number of threads."""
        rows = [row for row in self.results if row.side == side]
        return min(rows, key=lambda row: row.median, default=None)

    def as_json(self) -> dict[str, Any]:
        """All that was measured."""
        rows = [{**asdict(row), "median": row.median} for row in self.results]
        return {**asdict(self), "results": rows}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Comparison:
        """What `as_json` told."""
        names = [each.name for each in fields(Row)]
        rows = [Row(**{name: row[name] for name in names}) for row in data["results"]]
        return cls(**{**data, "results": rows})


def compare(workload: str, rows: int, options: Options, say: Callable[[str], None]) -> Comparison:
    """Build every side, then let them take turns.  What cannot be built is a line."""
    needed = outline(workload).flops(rows or WORKLOADS[workload].batch, train=not rows)
    made = Comparison(workload, rows, needed, time.strftime("%Y-%m-%d"))
    say(f"{made.title}:")
    tasks = [Task(s, t, workload, rows) for s in options.sides for t in options.threads]
    with ExitStack() as stack:
        ready, missing = start(tasks, options.pythons, options.patience)
        for worker, _ in ready:
            stack.enter_context(worker)
        for task, reason in missing.items():
            made.missing[task.text] = reason
            say(f"  {task.text}: skipped, {reason}")
        made.results = _turns(ready, made, options)
    return made


def _turns(
    ready: list[tuple[Worker, dict[str, Any]]], made: Comparison, options: Options
) -> list[Row]:
    rows = [
        Row(
            worker.task.side,
            worker.task.threads,
            said["versions"],
            error=said.get("error"),
            build_seconds=said.get("build_seconds"),
            memory_mb=said["memory_mb"],
        )
        for worker, said in ready
    ]
    pairs = list(zip([worker for worker, _ in ready], rows, strict=True))
    for count in range(options.rounds):
        for worker, row in pairs if count % 2 == 0 else reversed(pairs):
            time.sleep(SETTLE_SECONDS)
            try:
                value = worker.ask(options.seconds)
            except Failed as reason:
                made.missing[worker.task.text] = str(reason)
                continue
            row.times.append(made.flops / value * 1e6 if row.side == "bound" else value)
    return [row for row in rows if len(row.times) == options.rounds]


def machine() -> dict[str, Any]:
    """What it was measured on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": cores,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
