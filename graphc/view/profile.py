"""`ex.profile(...)`: the time of each instruction, as a table, as pictures and as a trace."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.base.arguments import checked_whole
from graphc.base.errors import GraphError
from graphc.base.text_table import aligned
from graphc.base.usable_cores import thread_count
from graphc.compiler.cost import Cost, cost
from graphc.compiler.plan import Plan, program_name
from graphc.files.disk import write_file
from graphc.ir.text.graph import name_text
from graphc.kernels.program import Instr, Program
from graphc.view.measure import RULE, Instructions, Peak, Verdict, await_idle, measure_peak, verdict
from graphc.view.render import render_times
from graphc.view.render.time_view import times_svg

if TYPE_CHECKING:
    from graphc.runtime.executor import Executor

COLUMNS = (
    "time us", "share", "kFLOP", "of peak", "kB", "GB/s", "roof", "bound", "kernel", "node", "line",
)  # fmt: skip
NUMBERS = 7
"""The number of columns at the start that are numbers."""
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
    line: str
    """The user's line of its node, or of the first fused one that has one."""

    @property
    def kernel(self) -> str:
        """The kernel's name, with the number of nodes that it computes at once."""
        kernel, nodes = self.instr.kernel, len(self.instr.nodes)
        return kernel if nodes <= 1 else f"{kernel} of {nodes}"

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that the instruction computes."""
        return self.instr.nodes or (self.instr.node,)


@dataclass(frozen=True)
class Profile:
    """The time of each instruction of a program, as `ex.profile` measures it.

    Each instruction was called by itself, in the program's order.  `print(profile)` shows them as a
    table, a notebook as bars.

    Parameters
    ----------
    plan
        The plan of the executor.
    name
        The program: "step", or without an optimizer "infer".
    n
        The number of rows of the run.
    rounds
        The number of times that each instruction was called.
    seconds
        The median time of each instruction of the program; 0 for a barrier.
    peak
        The limits of this machine: `threads`, and `flops` and `bytes` a second.

    Examples
    --------
    >>> net = gc.Net("small")
    >>> y = net.output("y", gc.relu(gc.affine(net.input("x", (gc.N, 4)), 8)))
    >>> ex = gc.Executor(gc.compile(net, batch=32))
    >>> ex.profile(x=np.ones((32, 4))).rounds
    20
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
    def timed(self) -> tuple[Timed, ...]:
        """Every instruction but barriers, in order."""
        pairs = zip(self.program.instrs, self.seconds, strict=True)
        return tuple(self._timed(*pair) for pair in pairs if pair[0].kind != "barrier")

    def _timed(self, instr: Instr, seconds: float) -> Timed:
        work = cost(self.program, instr, self.n)
        least = self.peak.seconds(work.flops, work.bytes)
        roof = least / seconds if seconds else 0.0
        nodes = [self.program.graph.nodes.get(name) for name in (instr.node, *instr.nodes)]
        lines = (str(node.loc) for node in nodes if node is not None and node.loc)
        bound = verdict(seconds, work, self.peak)
        return Timed(instr, seconds, work, roof, bound, next(lines, ""))

    @cached_property
    def by_node(self) -> Mapping[str, Timed]:
        """For each node, the instruction that computes it, alone or with others."""
        found: dict[str, Timed] = {}
        for timed in self.timed:
            for name in timed.nodes:
                found.setdefault(name, timed)
        return found

    def render(self, path: str | Path) -> Path:
        """Draw the times.

        Parameters
        ----------
        path
            The file to write: .svg for bars of the instructions, .html for the plan's page with
            the times.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        GraphError
            For another suffix, or if the file cannot be written.
        """
        return render_times(self, path)

    def chrome_trace(self, path: str | Path) -> Path:
        """Write a trace for Perfetto or chrome://tracing, with one event for each instruction.

        The events are the medians, one after the other, and not a recording of one run.

        Parameters
        ----------
        path
            The JSON file to write.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        GraphError
            If the file cannot be written.
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
            f"{table(self.timed, self.peak)}\n\nbound by {RULE}"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Return the bars for a notebook; `print` gives the table."""
        return {"text/plain": str(self), "image/svg+xml": times_svg(self)}

    def __repr__(self) -> str:
        return f"<Profile of {self.name!r}: {len(self.timed)} instructions, {self.total:.6f} s>"


def profile(ex: Executor, feeds: Mapping[str, Any], rounds: int) -> Profile:
    """Time the instructions of a training step, or of inference if there is no optimizer.

    They run in separate memory, from the executor's parameters; the executor does not change.
    Raise FeedError for wrong feeds, and GraphError for a wrong number of rounds.
    """
    count = checked_whole("profile: rounds", rounds, hint="ex.profile(x=..., rounds=20)")
    name = program_name(ex.plan)
    arrays, n = ex._check(ex.plan.programs[name]).arrays(feeds, optional=False)
    instructions = Instructions(ex.plan, name, arrays, n, ex.snapshot())
    await_idle()
    for _ in range(count):
        instructions.run(0)
    threads = thread_count(ex.plan.options.threads)
    medians = tuple(instructions.medians)
    return Profile(ex.plan, name, instructions.n, count, medians, measure_peak(threads))


def table(timed: Sequence[Timed], peak: Peak) -> str:
    """Return a line for each instruction, and their sum.

    `of peak` is the share of the peak of multiply-adds, `roof` the share of what the roofline
    allows: of the peak, or of the memory's bandwidth where that is the nearer limit.  Data that
    caches hold may come faster than that.  `bound` is the verdict, see `graphc.view.measure`.
    """
    total = sum(each.seconds for each in timed)
    work = sum((each.cost for each in timed), Cost())
    rows: list[tuple[str, ...]] = [COLUMNS]
    for each in timed:
        node = name_text(each.instr.node) if each.instr.node else ""
        bound = each.verdict if each.kernel != "sum" else ""
        numbers = _numbers(each.seconds, each.cost, total, peak)
        rows.append((*numbers, bound, each.kernel, node, each.line))
    rows.append((*_numbers(total, work, total, peak), "", "sum", "", ""))
    return "\n".join(aligned(rows, ">" * NUMBERS))


def _numbers(seconds: float, work: Cost, total: float, peak: Peak) -> tuple[str, ...]:
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
    )


def trace(profile: Profile) -> dict[str, Any]:
    """Return a trace in Chrome's format: a complete event ("X") an instruction, in microseconds."""
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
    for timed in profile.timed:
        duration = timed.seconds * 1e6
        yield {
            "name": timed.instr.node,
            "cat": f"{timed.instr.kind},{timed.verdict}",
            "ph": "X",
            "ts": round(start, 3),
            "dur": round(duration, 3),
            "pid": PROCESS,
            "tid": THREAD,
            "args": {
                "kernel": timed.kernel,
                "nodes": list(timed.nodes),
                "line": timed.line,
                "flops": timed.cost.flops,
                "bytes": timed.cost.bytes,
                "share of the roofline": round(timed.roof, 4),
                "bound by": timed.verdict,
            },
        }
        start += duration
