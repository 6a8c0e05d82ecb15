"""Judge one case after the other, and count."""

from __future__ import annotations

import gc as collector
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from tests.tools.fuzz.case import Case
from tests.tools.fuzz.check import Verdict, judge
from tests.tools.fuzz.coverage import Coverage
from tests.tools.fuzz.draw import Wishes, draw
from tests.tools.fuzz.shrink import shrink

SHRUNK = 5
"""How many failures are made small: what comes after is mostly the same."""
COLLECT = 50
"""Cases between two collections of garbage: at every moment they take most of the time."""


@dataclass
class Findings:
    """What a campaign found."""

    coverage: Coverage = field(default_factory=Coverage)
    failures: list[Verdict] = field(default_factory=list)
    cases: int = 0
    seconds: float = 0.0
    closest: float = 0.0
    """The largest share of its bound that an error took up."""
    loose: int = 0
    """Results whose bound is more than a hundredth of their largest number."""
    results: int = 0
    redrawn: int = 0

    def add(self, verdict: Verdict) -> None:
        """Count one case."""
        self.cases += 1
        self.redrawn += verdict.redrawn
        backend = verdict.case.backend
        self.coverage.verdicts[verdict.kind] += 1
        self.coverage.events.update({f"{backend} {e.kind}" for e in verdict.case.events})
        self.coverage.add(verdict.plans)
        if verdict.meant is not None:
            self.closest = max(self.closest, verdict.meant.closest)
            self.loose += verdict.meant.loose
            self.results += verdict.meant.judged
        if verdict.failed:
            self.failures.append(verdict)

    def merge(self, other: Findings) -> None:
        """Add what another process found."""
        self.coverage.merge(other.coverage)
        self.failures += other.failures
        self.cases += other.cases
        self.seconds = max(self.seconds, other.seconds)
        self.closest = max(self.closest, other.closest)
        self.loose += other.loose
        self.results += other.results
        self.redrawn += other.redrawn


def cases(
    seeds: Iterable[int], wishes: Wishes, until: float | None = None, shrunk: int = SHRUNK
) -> Findings:
    """Judge the cases of these seeds, until that time of `time.monotonic()`.

    The first few that fail are made small.
    """
    findings = Findings()
    start = time.monotonic()
    with collected_rarely() as collect:

        def judged(case: Case) -> Verdict:
            collect()
            return _judged(case, wishes.proved)

        for seed in seeds:
            if until is not None and time.monotonic() > until:
                break
            verdict = judged(draw(seed, wishes))
            if verdict.failed and len(findings.failures) < shrunk:
                verdict = shrink(verdict, judged)
            findings.add(verdict)
            verdict.meant, verdict.plans = None, []
    findings.seconds = time.monotonic() - start
    return findings


def _judged(case: Case, proved: bool) -> Verdict:
    verdict = judge(case)
    if not proved or verdict.failed:
        return verdict
    try:
        refuted = [report for plan in verdict.plans if not (report := plan.verify()).ok]
    except Exception:
        return replace(verdict, kind="raised", message=traceback.format_exc())
    return replace(verdict, kind="wrong", message=str(refuted[0])) if refuted else verdict


@contextmanager
def collected_rarely() -> Iterator[Callable[[], None]]:
    """No search for reference cycles but where the yielded function is called often enough."""
    calls = 0

    def collect() -> None:
        nonlocal calls
        calls += 1
        if calls % COLLECT == 0:
            collector.collect()

    enabled = collector.isenabled()
    collector.disable()
    try:
        yield collect
    finally:
        if enabled:
            collector.enable()
