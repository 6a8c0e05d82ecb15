"""`ex.profile(...)`: the time of each instruction, as text, as pictures and as a trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.ir.numbers import checked_whole
from graphc.ir.plan import Instr, Plan, Program
from graphc.view.profile.cost import Cost, cost
from graphc.view.profile.idle import await_idle
from graphc.view.profile.peak import Peak, measure_peak
from graphc.view.profile.table import Line, lines_of, table
from graphc.view.profile.times import Instructions, program_name
from graphc.view.profile.verdict import RULE, Verdict, verdict

if TYPE_CHECKING:
    from graphc.runtime.executor import Executor


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
        return (self.instr.node,)


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
        return tuple(self._timed())

    def _timed(self) -> Iterator[Timed]:
        for instr, seconds in zip(self.program.instrs, self.seconds, strict=True):
            if instr.kind != "barrier":
                work = cost(self.program, instr, self.n)
                least = self.peak.seconds(work.flops, work.bytes)
                roof = least / seconds if seconds else 0.0
                yield Timed(instr, seconds, work, roof, verdict(seconds, work, self.peak))

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
        from graphc.view.profile.trace import write_trace

        return write_trace(self, Path(path))

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
    peak = measure_peak(_threads(ex.plan))
    return Profile(ex.plan, name, n, count, tuple(instructions.medians), peak)


def _threads(plan: Plan) -> int:
    """Return the threads that the peak is measured with: the plan's, or every core for NumPy."""
    from graphc.backends.native.usable_cores import thread_count

    return thread_count(plan.recipe.threads if plan.backend == "native" else None)
