"""Comparisons as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

from tests.tools.benchmarks.peers.rounds import LATE, Comparison, Row
from tests.tools.benchmarks.peers.workloads import GROUPS

OURS = ("graphc", "graphc-numpy")
BOUND = "bound"
MOST_COLUMNS = 8

HEAD = """\
The times are medians over rounds in which all sides take turns.  Each side runs in its own
process, with the number of threads that is better for it.  A training step is forward, loss,
backward and SGD with momentum in float32, on a new batch each time, and reads the loss back.
Inference goes from NumPy arrays to a NumPy array.  Before the rounds, the losses or scores of every
side are compared with float64.  The bound is the time that the matrix products alone take at the
peak of the machine, measured in the same rounds.
"""
BFLOAT16 = """\
## Products in bfloat16

Sides that begin with bf16 round the factors of products to bfloat16; some differ in how.  The
times, medians of those of bf16-graphc in the same round being 1:
"""


def report(comparisons: Sequence[Comparison], machine: dict[str, Any], note: str) -> str:
    """The whole report: machine and versions, an overview, a table for each comparison."""
    parts = [HEAD, _machine_text(comparisons, machine), note]
    for train, title in ((True, "Training steps"), (False, "Inference")):
        for kind, group in GROUPS.items():
            chosen = [
                c
                for c in comparisons
                if (c.rows == 0) is train and c.workload in group and c.results and not c.mode
            ]
            if chosen:
                parts += [f"## {title}: {kind}\n", overview(chosen)]
    parts.append(bfloat16(comparisons))
    parts.append("## Every side\n")
    parts += [table(c) for c in comparisons if c.results]
    return "\n".join(part for part in parts if part)


def _machine_text(comparisons: Sequence[Comparison], machine: dict[str, Any]) -> str:
    sides = [r for c in comparisons for r in c.results if r.side != "bound"]
    versions = dict.fromkeys(part for r in sides for part in r.versions.split(", "))
    dates = sorted({c.date for c in comparisons})
    when = f"on {dates[0]}" if len(dates) == 1 else f"from {dates[0]} to {dates[-1]}"
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['system']}"
    peaks = (
        f"{peak['flops'] / 1e9:.0f} GFLOP/s and {peak['bytes'] / 1e9:.0f} GB/s on {peak['threads']}"
        for peak in machine["peaks"]
    )
    return (
        f"Measured {when}: {where}, Python {machine['python']}.  Peaks measured, by the number of "
        f"threads: {'; '.join(peaks)}.  Versions: {'; '.join(versions)}.\n"
    )


def bfloat16(comparisons: Sequence[Comparison]) -> str:
    """All sides' times as multiples of those of bf16-graphc, where that was measured."""
    found = [c for c in comparisons if c.best("bf16-graphc")]
    return f"{BFLOAT16}\n{overview(found, _over_bfloat16)}" if found else ""


def _median(made: Comparison, row: Row) -> str:
    return time_text(row.median)


def _over_bfloat16(made: Comparison, row: Row) -> str:
    base = made.best("bf16-graphc")
    return f"{ratio(row, base):.2f}" if base else ""


def overview(
    comparisons: Sequence[Comparison], cell: Callable[[Comparison, Row], str] = _median
) -> str:
    """A row for each side and a column for each workload; of many workloads the other way round."""
    sides = list(dict.fromkeys(row.side for c in comparisons for row in c.results))
    names = [c.workload + (f" b{c.rows}" if c.rows else "") for c in comparisons]
    cells = [["", *names]]
    for side in sides:
        best = [(c, c.best(side)) for c in comparisons]
        cells.append([side, *(cell(c, row) if row else "" for c, row in best)])
    if len(names) > MOST_COLUMNS:
        cells = [list(column) for column in zip(*cells, strict=True)]
    head, *rows = cells
    rule = line("---", *["---:"] * (len(head) - 1))
    return "\n".join([line(*head), rule, *(line(*row) for row in rows)]) + "\n"


def table(made: Comparison) -> str:
    """The sides of a comparison from fast to slow, and what was skipped."""
    sides = dict.fromkeys(row.side for row in made.results)
    best = [row for side in sides if (row := made.best(side)) is not None]
    best.sort(key=lambda row: row.median)
    ours = next((row for name in OURS for row in best if row.side == name), None)
    ratio = f"/ {ours.side}" if ours else "/ fastest"
    columns = ["side", "threads", "median", "10-90 %", ratio, "/ bound", "build", "memory"]
    late = [f"p{percent:g}" for percent in LATE] if any(row.late for row in best) else []
    columns += late
    lines = [f"### {made.title}\n", line(*columns), line("---", *["---:"] * (len(columns) - 1))]
    bound = made.best(BOUND)
    peers = [row for row in best if row.side != BOUND]
    base = ours or (peers[0] if peers else None)
    for row in best:
        tails = [time_text(value) for value in row.late] or [""] * len(late)
        lines.append(line(*_cells(row, base, bound), *tails))
    lines += _skipped(made)
    return "\n".join(lines) + "\n"


def _cells(row: Row, base: Row | None, bound: Row | None) -> Iterator[str]:
    yield row.side
    yield str(row.threads)
    yield time_text(row.median)
    yield spread(row)
    yield "" if base is None else f"{ratio(row, base):.2f}"
    yield "" if bound is None else f"{ratio(row, bound):.2f}"
    yield "" if row.build_seconds is None else f"{row.build_seconds:.2g} s"
    yield "" if row.side == BOUND else f"{row.memory_mb:.0f} MB"


def ratio(row: Row, base: Row) -> float:
    """How much longer it takes: the median over rounds, since both met the same disturbances."""
    return median(a / b for a, b in zip(row.times, base.times, strict=True))


def spread(row: Row) -> str:
    """The range that most rounds lie in."""
    times = sorted(row.times)
    low, high = times[len(times) // 10], times[-1 - len(times) // 10]
    return f"{time_text(low)} to {time_text(high)}"


def time_text(microseconds: float) -> str:
    """Three digits, in the unit that fits."""
    for unit, size in (("us", 1.0), ("ms", 1e3), ("s", 1e6)):
        value = microseconds / size
        if value < 999.5 or unit == "s":
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{digits}f} {unit}"
    raise AssertionError("the last unit fits all")


def _skipped(made: Comparison) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for task, reason in made.missing.items():
        reasons.setdefault(reason, []).append(task.partition(" on ")[0])
    if reasons:
        yield ""
        texts = (f"{', '.join(dict.fromkeys(t))} ({reason})" for reason, t in reasons.items())
        yield f"Left out: {'; '.join(texts)}."


def line(*cells: str) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"
