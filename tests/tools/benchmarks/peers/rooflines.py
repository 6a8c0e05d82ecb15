"""Where the time of graphc's training steps goes, and what the machine would allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import graphc as gc
from graphc.view.profile import Profile, Timed
from tests.tools.benchmarks.peers.outline import batches, outline
from tests.tools.benchmarks.peers.sides.graphc_side import Native
from tests.tools.benchmarks.peers.table import line, time_text
from tests.tools.benchmarks.peers.workloads import MOMENTUM, WORKLOADS

SHOWN = 15
"""Instructions with a row of their own; small ones share the last."""
COLUMNS = ("node", "kernel", "time", "share", "GFLOP/s", "GB/s", "roof", "bound", "left")

HEAD = """\
## Where the time goes

Each instruction of a training step is called by itself, on all cores; times are medians of rounds.
`roof` is the share of its time that the nearer limit of the machine requires, and `left` is the
rest, which better code could save at most; the instruction with the most left is first.  Data in
caches may come faster than the memory's bandwidth; then nothing is left.
"""


def profiled(name: str, threads: int, rounds: int) -> Profile:
    """The instructions of a workload's training step."""
    workload = WORKLOADS[name]
    rule = gc.SGD(lr=workload.lr, momentum=MOMENTUM)
    ex = Native(threads).executor(workload, outline(name).parameters, True, workload.batch, rule)
    feeds = batches(name, workload.batch, 1)[0]
    for _ in range(3):
        ex.step(dict(feeds))
    return ex.profile(dict(feeds), rounds=rounds)


def roofline(name: str, found: Profile) -> str:
    """A row for each instruction that leaves much, and what is left in all."""
    order = sorted(found.timed, key=left, reverse=True)
    head, rest = order[:SHOWN], order[SHOWN:]
    lines = [f"### {name}\n", line(*COLUMNS), line("---", "---", *["---:"] * (len(COLUMNS) - 2))]
    lines += [line(*_cells(timed, found)) for timed in head]
    if rest:
        lines.append(line(*_sum(f"{len(rest)} others", rest, found)))
    lines += [line(*_sum("all", order, found)), "", _peak(found)]
    return "\n".join(lines) + "\n"


def left(timed: Timed) -> float:
    """Seconds beyond what the machine's nearer limit asks for."""
    return timed.seconds * max(0.0, 1 - timed.roof)


def _cells(timed: Timed, found: Profile) -> Iterator[str]:
    work, seconds = timed.cost, timed.seconds
    yield f"`{timed.instr.node}`"
    yield timed.instr.kernel
    yield time_text(seconds * 1e6)
    yield f"{seconds / found.total:.1%}"
    yield f"{work.flops / seconds / 1e9:.0f}"
    yield f"{work.bytes / seconds / 1e9:.1f}"
    yield f"{timed.roof:.0%}"
    yield timed.verdict
    yield time_text(left(timed) * 1e6)


def _sum(title: str, parts: Sequence[Timed], found: Profile) -> Iterator[str]:
    seconds, beyond = sum(part.seconds for part in parts), sum(map(left, parts))
    yield from (title, "", time_text(seconds * 1e6), f"{seconds / found.total:.1%}")
    yield f"{sum(part.cost.flops for part in parts) / seconds / 1e9:.0f}"
    yield f"{sum(part.cost.bytes for part in parts) / seconds / 1e9:.1f}"
    yield from (f"{1 - beyond / seconds:.0%}", "", time_text(beyond * 1e6))


def _peak(found: Profile) -> str:
    peak = found.peak
    return f"{peak.threads} threads: {peak.flops / 1e9:.0f} GFLOP/s, {peak.bytes / 1e9:.0f} GB/s."
