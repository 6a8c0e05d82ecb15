"""The time of each instruction of a program, run by itself but in the program's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from time import perf_counter, process_time, sleep
from typing import Any

from graphc.backends.backend import Call, View
from graphc.backends.table import backend
from graphc.compiler.plan import Plan
from graphc.ir.op import Array
from graphc.runtime.entry import quiet_context
from graphc.runtime.state import State
from graphc.runtime.workspace import Workspace

PAUSE = 0.005
LONGEST = 0.3


class Instructions:
    """The instructions of a program on memory of their own, each ready to be called alone.

    Native kernels are compiled one by one, with the threads of the plan.  A time includes the call:
    about 0.3 us from Python, and the time to wake the threads if several share the work.  `values`
    are the parameters and states to start from, else those of a new executor.
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
        state = State(plan.state_nodes)
        if values is not None:
            state.assign(values)
        self._workspace = Workspace(plan.programs, plan.batch, state, plan.recipe.threads)
        for feed, array in feeds.items():
            if feed in self.program.feeds:
                self._view(feed, n)[...] = array
        self._kept: list[object] = []
        self._calls = self._bound(n)
        self._times: list[list[float]] = [[] for _ in self._calls]
        self._quiet = quiet_context()

    @property
    def medians(self) -> list[float]:
        """Seconds of each instruction, the median over all passes; 0 for a barrier."""
        return [median(times) if times else 0.0 for times in self._times]

    def run(self, seconds: float) -> None:
        """Pass through the program repeatedly for `seconds`, and time each instruction."""
        end = perf_counter() + seconds
        while True:
            self._quiet.run(_time_calls, self._calls, self._times)
            if perf_counter() >= end:
                return

    def _view(self, name: str, n: int) -> Array:
        return self._workspace.view(self.program, name, n)

    def _bound(self, n: int) -> list[Sequence[Call]]:
        def view(name: str) -> Array:
            return self._view(name, n)

        made: list[Sequence[Call]] = []
        for i, instr in enumerate(self.program.instrs):
            if instr.kind == "barrier" or instr.kind in ("send", "receive"):
                made.append(())
            else:
                made.append(self._alone(i, n, view))
        return made

    def _alone(self, i: int, n: int, view: View) -> Sequence[Call]:
        """Return the calls of the program of which every instruction but one is left out."""
        others = frozenset(range(len(self.program.instrs))) - {i}
        runner = backend(self.program.backend).bind(self.program, others, self._workspace)
        self._kept.append(runner)
        return runner.calls(n, view)[0]


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

    OpenBLAS's threads look for work for some hundredths of a second after a product before they
    sleep; anything timed meanwhile has to share the cores with them.
    """
    for _ in range(round(LONGEST / PAUSE)):
        before = process_time()
        sleep(PAUSE)
        if process_time() - before < PAUSE / 10:
            return
