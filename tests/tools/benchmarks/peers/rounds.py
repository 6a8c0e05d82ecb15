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

import numpy as np

from graphc.view.measure import measure_peak
from tests.tools.benchmarks.peers.outline import outline
from tests.tools.benchmarks.peers.processes import Failed, Task, Worker, busy, export, start
from tests.tools.benchmarks.peers.workloads import EXPORTED, WORKLOADS

LATE = 50, 99, 99.9
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
    models: Path
    """The folder of exported networks, which are written there where they are missing."""
    beside: int = 0
    """Processes beside it that never rest."""
    period: float = 0.0
    """Seconds from call to call; 0: one after the other."""

    @property
    def mode(self) -> str:
        """What a title adds."""
        load = f", beside {self.beside} busy processes" if self.beside else ""
        return load + (f", every {self.period * 1e3:g} ms" if self.period else "")


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
    late: list[float] = field(default_factory=list)
    """With a period, the percentiles LATE of all calls."""

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
    mode: str = ""

    @property
    def title(self) -> str:
        """As a table is headed."""
        if self.rows:
            return f"{self.workload}, inference at batch {self.rows}{self.mode}"
        batch = WORKLOADS[self.workload].batch
        return f"{self.workload}, training step at batch {batch}{self.mode}"

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
        rows = [Row(**{n: row[n] for n in names if n in row}) for row in data["results"]]
        return cls(**{**data, "results": rows})


def compare(workload: str, rows: int, options: Options, say: Callable[[str], None]) -> Comparison:
    """Build every side, then let them take turns.  What cannot be built is a line."""
    made = Comparison(workload, rows, 0, time.strftime("%Y-%m-%d"), mode=options.mode)
    say(f"{made.title}:")
    if workload in EXPORTED:
        reason = export(workload, options.models, options.pythons)
        if reason is not None:
            say(f"  left out, {reason}")
            return made
    made.flops = _flops(workload, rows, options.models)
    models = str(options.models.resolve())
    tasks = [Task(s, t, workload, rows, models) for s in options.sides for t in options.threads]
    with ExitStack() as stack:
        ready, missing = start(tasks, options.pythons, options.patience)
        for worker, _ in ready:
            stack.enter_context(worker)
        for task, reason in missing.items():
            made.missing[task.text] = reason
            say(f"  {task.text}: skipped, {reason}")
        with busy(options.beside):
            made.results = _turns(ready, made, options)
    return made


def _flops(workload: str, rows: int, models: Path) -> int:
    """What the products of a step or of a call take."""
    if workload not in EXPORTED:
        return outline(workload).flops(rows or WORKLOADS[workload].batch, train=not rows)
    with np.load(models / f"{workload}.npz") as file:
        return rows * int(file["flops"])


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
    calls: dict[int, list[float]] = {id(row): [] for row in rows}
    for count in range(options.rounds):
        for worker, row in pairs if count % 2 == 0 else reversed(pairs):
            time.sleep(SETTLE_SECONDS)
            try:
                values = worker.ask(options.seconds, options.period)
            except Failed as reason:
                made.missing[worker.task.text] = str(reason)
                continue
            value = median(values)
            row.times.append(made.flops / value * 1e6 if row.side == "bound" else value)
            calls[id(row)] += values
    for row in rows:
        if options.period and row.side != "bound":
            row.late = [float(late) for late in np.percentile(calls[id(row)], LATE)]
    return [row for row in rows if len(row.times) == options.rounds]


def machine() -> dict[str, Any]:
    """What it was measured on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": cores,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "peaks": [asdict(measure_peak(threads)) for threads in sorted({1, cores or 1})],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = dict(map(str.strip, line.split(":", 1)) for line in reversed(lines) if ":" in line)
    name = found.get("model name", platform.machine())
    parts = (f"{part} {found[part]}" for part in ("cpu family", "model") if part in found)
    return ", ".join((name, *parts))
