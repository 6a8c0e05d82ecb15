"""`ex.profile(...)`: the time of each instruction, as text, as pictures and as a trace."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.backends.native.usable_cores import thread_count
from graphc.base.errors import GraphError
from graphc.files.writing import write_file
from graphc.ir.numbers import checked_whole
from graphc.ir.plan import Instr, Plan, Program
from graphc.ir.text.graph import name_text
from graphc.view.cost import Cost, cost
from graphc.view.peak import RULE, Peak, Verdict, measure_peak, verdict
from graphc.view.times import Instructions, await_idle, program_name

if TYPE_CHECKING:
    from graphc.runtime.executor import Executor


COLUMNS = (
    "time us", "share", "kFLOP", "of peak", "kB", "GB/s", "roof", "bound", "kernel", "node", "line",
)  # fmt: skip
TEXT_COLUMNS = 4
"""The number of columns at the end that are left-aligned."""
PROCESS, THREAD = 1, 1


@dataclass(frozen=True, slots=True)
class Timed:
    """An instruction with its seconds, its cost, and the limit that it is bound by."""

    instr: Instr
    seconds: float
    cost: Cost
    roof: float
    """The share of its time that the machine's nearer limit needs at least."""
    verdict: Verdict

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that the instruction computes."""
        if self.instr.nodes:
            return self.instr.nodes
        return self.instr.outs if self.instr.members > 1 else (self.instr.node,)


@dataclass(frozen=True)
class Profile:
    """Median seconds of each instruction of a program for `n` rows, on a machine with `peak`.

    Each instruction was called by itself, in the program's order.  Barriers have no time.
    """

    plan: Plan
    name: str
    n: int
    rounds: int
    seconds: tuple[float, ...]
    peak: Peak

    @property
    def program(self) -> Program:
        """The program whose instructions are timed."""
        return self.plan.programs[self.name]

    @cached_property
    def total(self) -> float:
        """The sum of the seconds of all instructions."""
        return sum(self.seconds)

    @cached_property
    def lines(self) -> list[Line]:
        """A line of the table for each instruction but barriers."""
        return lines_of(self.program, self.seconds, self.n)

    @cached_property
    def timed(self) -> tuple[Timed, ...]:
        """Every instruction but barriers, in order."""
        found = []
        for instr, seconds in zip(self.program.instrs, self.seconds, strict=True):
            if instr.kind != "barrier":
                work = cost(self.program, instr, self.n)
                least = self.peak.seconds(work.flops, work.bytes)
                roof = least / seconds if seconds else 0.0
                found.append(Timed(instr, seconds, work, roof, verdict(seconds, work, self.peak)))
        return tuple(found)

    @cached_property
    def by_node(self) -> Mapping[str, Timed]:
        """For each node, the instruction that computes it, alone or with others."""
        found: dict[str, Timed] = {}
        for timed in self.timed:
            for name in timed.nodes:
                found.setdefault(name, timed)
        return found

    def render(self, path: str | Path) -> Path:
        """Draw the times: .svg has bars of the instructions, .html the plan's page with the times.

        Raise GraphError for another suffix.
        """
        from graphc.view.render.time_view import render_times

        return render_times(self, path)

    def chrome_trace(self, path: str | Path) -> Path:
        """Write a trace for Perfetto or chrome://tracing: one event for each instruction.

        Times are the medians, one after the other; it is not a recording of one run.
        """
        text = json.dumps(trace(self), indent=1) + "\n"
        return write_file(Path(path), [text.encode()], GraphError)

    def __str__(self) -> str:
        rows = f"{self.n} row{'' if self.n == 1 else 's'}"
        return (
            f"{self.name!r} of {self.plan.declared.name!r} at {rows} on {self.plan.backend}: each "
            f"instruction called by itself, medians of {self.rounds} rounds\n"
            f"peak of {self.peak.threads} thread{'' if self.peak.threads == 1 else 's'}: "
            f"{self.peak.flops / 1e9:.0f} GFLOP/s, {self.peak.bytes / 1e9:.0f} GB/s\n\n"
            f"{table(self.lines, self.peak)}\n\nbound by {RULE}"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Return the bars for a notebook; `print` gives the table."""
        from graphc.view.render.time_view import times_svg

        return {"text/plain": str(self), "image/svg+xml": times_svg(self)}

    def __repr__(self) -> str:
        return f"<Profile of {self.name!r}: {len(self.lines)} instructions, {self.total:.6f} s>"


def profile(ex: Executor, feeds: Mapping[str, Any], rounds: int) -> Profile:
    """Time the instructions of a training step, or of inference if there is no optimizer.

    They run on memory of their own, from the executor's parameters; the executor does not change.
    Raise FeedError for wrong feeds, and GraphError for a wrong number of rounds.
    """
    count = checked_whole("profile: rounds", rounds, hint="ex.profile(x=..., rounds=20)")
    name = program_name(ex.plan)
    arrays, n = ex._check(ex.plan.programs[name]).arrays(feeds, optional=False)
    instructions = Instructions(ex.plan, name, arrays, n, ex.snapshot())
    await_idle()
    for _ in range(count):
        instructions.run(0)
    threads = thread_count(ex.plan.recipe.threads if ex.plan.backend == "native" else None)
    peak = measure_peak(threads)
    return Profile(ex.plan, name, n, count, tuple(instructions.medians), peak)


@dataclass(frozen=True, slots=True)
class Line:
    """An instruction: its seconds, its cost, and its kernel, node and source line."""

    seconds: float
    cost: Cost
    kernel: str
    node: str
    where: str


def lines_of(program: Program, seconds: Sequence[float], n: int) -> list[Line]:
    """Return a line for each instruction but barriers, in order."""
    pairs = zip(program.instrs, seconds, strict=True)
    return [
        Line(time, cost(program, instr, n), kernel_text(instr), instr.node, _where(program, instr))
        for instr, time in pairs
        if instr.kind != "barrier"
    ]


def kernel_text(instr: Instr) -> str:
    """Return the kernel's name, with the number of nodes that it computes at once."""
    nodes = len(instr.nodes) if instr.body is not None else instr.members
    return instr.kernel if nodes <= 1 else f"{instr.kernel} of {nodes}"


def _where(program: Program, instr: Instr) -> str:
    """Return the user's line of the node, or of the first fused one that has one."""
    for name in (instr.node, *instr.nodes):
        node = program.graph.nodes.get(name)
        if node is not None and node.locs:
            return str(node.locs[0])
    return ""


def table(lines: Sequence[Line], peak: Peak) -> str:
    """Return the lines and their sum.

    `of peak` is the share of the peak of multiply-adds, `roof` the share of what the roofline
    allows: of the peak, or of the memory's bandwidth where that is the nearer limit.  Data that
    caches hold may come faster than that.  `bound` is the verdict, see
    `graphc.view.peak`.
    """
    total = sum(line.seconds for line in lines)
    whole = sum((line.cost for line in lines), Cost())
    rows: list[tuple[str, ...]] = [COLUMNS]
    rows += [_row(line, total, peak) for line in lines]
    rows.append(_row(Line(total, whole, "sum", "", ""), total, peak))
    return "\n".join(_aligned(rows))


def _row(line: Line, total: float, peak: Peak) -> tuple[str, ...]:
    seconds, work = line.seconds, line.cost
    rate = work.flops / seconds if seconds else 0.0
    stream = work.bytes / seconds if seconds else 0.0
    roof = peak.seconds(work.flops, work.bytes) / seconds if seconds else 0.0
    return (
        f"{seconds * 1e6:.1f}",
        f"{seconds / total if total else 0:.1%}",
        f"{work.flops / 1e3:.1f}",
        f"{rate / peak.flops:.1%}",
        f"{work.bytes / 1e3:.1f}",
        f"{stream / 1e9:.1f}",
        f"{roof:.0%}",
        verdict(seconds, work, peak) if line.kernel != "sum" else "",
        line.kernel,
        name_text(line.node) if line.node else "",
        line.where,
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = len(COLUMNS) - TEXT_COLUMNS
    for row in rows:
        cells = [
            cell.rjust(width) if i < left else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def trace(profile: Profile) -> dict[str, Any]:
    """Return the JSON Object Format: metadata, then a complete event ("X") for each instruction.

    `ts` and `dur` are microseconds; events follow each other without gaps.
    """
    return {
        "traceEvents": [*_metadata(profile), *_events(profile)],
        "displayTimeUnit": "ns",
        "otherData": {
            "rows": profile.n,
            "rounds": profile.rounds,
            "backend": profile.plan.backend,
            "peak GFLOP/s": round(profile.peak.flops / 1e9, 3),
            "peak GB/s": round(profile.peak.bytes / 1e9, 3),
        },
    }


def _metadata(profile: Profile) -> Iterator[dict[str, Any]]:
    for what, name in (("process_name", profile.plan.declared.name), ("thread_name", profile.name)):
        place = {"ph": "M", "pid": PROCESS, "tid": THREAD, "ts": 0}
        yield {"name": what, **place, "args": {"name": name}}


def _events(profile: Profile) -> Iterator[dict[str, Any]]:
    start = 0.0
    for timed, line in zip(profile.timed, profile.lines, strict=True):
        duration = timed.seconds * 1e6
        yield {
            "name": line.node,
            "cat": f"{timed.instr.kind},{timed.verdict}",
            "ph": "X",
            "ts": round(start, 3),
            "dur": round(duration, 3),
            "pid": PROCESS,
            "tid": THREAD,
            "args": {
                "kernel": kernel_text(timed.instr),
                "nodes": list(timed.nodes),
                "line": line.where,
                "flops": timed.cost.flops,
                "bytes": timed.cost.bytes,
                "share of the roofline": round(timed.roof, 4),
                "bound by": timed.verdict,
            },
        }
        start += duration
