"""Measurements: the limits of this machine, and the time of each instruction of a program.

The limits are multiply-adds and bytes a second.  Instructions run alone, in the program's order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter, process_time, sleep
from typing import Any, Literal

import numpy as np

from graphc.backends.backend import USUAL, Backend, Call, backend
from graphc.compiler.cost import Cost
from graphc.compiler.plan import Plan
from graphc.ir.op import Array
from graphc.runtime.bound import Binder
from graphc.runtime.entry import quiet_context, run_all
from graphc.runtime.row_axis import first_rows
from graphc.runtime.state import State
from graphc.runtime.workspace import Workspace

STREAM = 1 << 23
"""The floats of each of three arrays, which are larger than caches."""

Verdict = Literal["compute", "memory", "overhead"]
EXPLAINED = 0.25
"""The share of an instruction's time that a limit must account for, to be the one it is bound by.
"""
RULE = (
    "compute: its operations at the machine's peak take at least a quarter of its time, and longer "
    "than its bytes; memory: its bytes at the memory's bandwidth do; overhead: neither does, the "
    "rest is calls, waking threads, waiting for caches, and functions such as exp that count as "
    "one operation"
)
"""The rule in words, for legends."""


@dataclass(frozen=True)
class Peak:
    """The limits of a number of threads together."""

    threads: int
    flops: float
    """Floating-point operations a second, float32; a multiply-add is two."""
    bytes: float
    """Bytes a second between memory and cores."""

    def seconds(self, flops: float, nbytes: float) -> float:
        """Return the least time for this work, by whichever limit takes longer."""
        return max(flops / self.flops, nbytes / self.bytes)


def _fastest() -> Backend:
    """Return the first backend that is available."""
    return next(found for found in map(backend, USUAL) if found.missing() is None)


def measure_peak(threads: int, seconds: float = 0.2) -> Peak:
    """Return both limits, each measured for `seconds`."""
    return Peak(threads, flop_rate(threads, seconds), stream_rate(threads, seconds))


def how() -> str:
    """Return the name of the work that `flop_rate` measures."""
    return _fastest().peak_work().name


def flop_rate(threads: int, seconds: float) -> float:
    """Return floating-point operations a second of `threads` threads, a median over `seconds`."""
    fastest = _fastest()
    work = fastest.peak_work()
    return work.flops * _calls_a_second(work.make, fastest.threads(threads), seconds)


def stream_rate(threads: int, seconds: float) -> float:
    """Return the bytes a second of c = a + b on arrays that are larger than caches."""

    def make() -> Call:
        a, b, c = (np.ones(STREAM, np.float32) for _ in range(3))
        return partial(np.add, a, b, out=c)

    return 3 * 4 * STREAM * _calls_a_second(make, threads, seconds)


def _calls_a_second(make: Callable[[], Call], threads: int, seconds: float) -> float:
    """Return the sum of the rates of all threads, each the median of its own calls."""
    calls = [make() for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        return sum(1 / each for each in pool.map(lambda call: median_time(call, seconds), calls))


def median_time(call: Call, seconds: float) -> float:
    """Return the median seconds of a call, which is repeated for `seconds`."""
    call()
    # The call before fills caches and wakes threads: it does not count.
    found: list[float] = []
    start = last = perf_counter()
    while last - start < seconds or not found:
        call()
        now = perf_counter()
        found.append(now - last)
        last = now
    return median(found)


def verdict(seconds: float, work: Cost, peak: Peak) -> Verdict:
    """Return the limit that explains the time of an instruction that does this work."""
    compute, memory = work.flops / peak.flops, work.bytes / peak.bytes
    if max(compute, memory) < EXPLAINED * seconds:
        return "overhead"
    return "compute" if compute >= memory else "memory"


PAUSE = 0.005
LONGEST = 0.3


class Instructions:
    """The instructions of a program in separate memory, each ready to be called alone.

    Each is bound alone, with the threads of the plan.  A time includes the call: about 0.3 us
    from Python, and the time to wake the threads if several share the work.  `values` are the
    parameters and states to start from, else those of a new executor.
    """

    def __init__(
        self,
        plan: Plan,
        name: str,
        feeds: Mapping[str, Any],
        n: int,
        values: Mapping[str, Array] | None = None,
    ) -> None:
        self.program = plan.programs[name]
        self.n = n = min(n, self.program.capacity)
        """The rows of a run: those of a block if the program runs in blocks."""
        state = State(plan.state_nodes)
        if values is not None:
            state.assign(values)
        self._workspace = Workspace(plan.programs, plan.batch, state, plan.options.threads)
        for feed, array in feeds.items():
            if feed in self.program.feeds:
                self._view(feed, n)[...] = first_rows(array, self.program.feeds[feed], n)
        if name == "infer":
            run_all(Binder(self._workspace).preparation(plan.programs))
        self._kept: list[object] = []
        self._calls = self._bound(n)
        self._times: list[list[float]] = [[] for _ in self._calls]
        self._quiet = quiet_context()

    @property
    def medians(self) -> list[float]:
        """Seconds of each instruction, the median over all rounds; 0 for a barrier."""
        return [median(times) if times else 0.0 for times in self._times]

    def run(self, seconds: float) -> None:
        """Run the program in rounds for `seconds`, and time each instruction."""
        end = perf_counter() + seconds
        while True:
            self._quiet.run(_time_calls, self._calls, self._times)
            if perf_counter() >= end:
                return

    def _view(self, name: str, n: int) -> Array:
        return self._workspace.view(self.program, name, n)

    def _bound(self, n: int) -> list[Sequence[Call]]:
        idle = ("barrier", "send", "receive")
        kinds = [instr.kind for instr in self.program.instrs]
        return [() if kind in idle else self._alone(i, n) for i, kind in enumerate(kinds)]

    def _alone(self, i: int, n: int) -> Sequence[Call]:
        """Return the calls of one instruction: those of the program without the others."""
        others = frozenset(range(len(self.program.instrs))) - {i}
        runner = backend(self.program.backend).bind(self.program, others, self._workspace)
        self._kept.append(runner)
        return runner.calls(n, lambda name: self._view(name, n))[0]


def _time_calls(calls: Sequence[Sequence[Call]], times: Sequence[list[float]]) -> None:
    last = perf_counter()
    for some, found in zip(calls, times, strict=True):
        for call in some:
            call()
        now = perf_counter()
        if some:
            found.append(now - last)
        last = now


def await_idle() -> None:
    """Return once the process takes next to no time of any core, or after 0.3 s.

    OpenBLAS's threads spin for some hundredths of a second after a product before they sleep;
    anything timed meanwhile shares the cores with them.
    """
    for _ in range(round(LONGEST / PAUSE)):
        before = process_time()
        sleep(PAUSE)
        if process_time() - before < PAUSE / 10:
            return
