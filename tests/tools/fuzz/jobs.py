"""A campaign's seeds, shared among processes."""

from __future__ import annotations

import itertools
import multiprocessing
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.backends.native.shared_runs import shared_runs
from tests.poisoned import poisoned_memory
from tests.tools.fuzz.campaign import Findings, cases
from tests.tools.fuzz.draw import Wishes
from tests.tools.fuzz.write import write

MOST_THREADS = 4


@dataclass
class Report:
    """What was found; of cases that fail the tests that were written, and what is wrong."""

    findings: Findings = field(default_factory=Findings)
    failed: list[tuple[Path, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """Every so manieth seed from its number on, so that jobs share the work evenly."""

    number: int
    jobs: int
    seed: int
    count: int | None
    wishes: Wishes
    until: float | None
    folder: Path

    def run(self) -> Report:
        """Judge the cases of this job, and write a test for each that fails."""
        findings = self._cases()
        failed = [(write(each, self.folder), each.summary) for each in findings.failures]
        return Report(replace(findings, failures=[]), failed)

    def _cases(self) -> Findings:
        last = None if self.count is None else self.seed + self.count
        seeds = itertools.count(self.seed) if last is None else range(self.seed, last)
        mine = itertools.islice(seeds, self.number, None, self.jobs)
        with poisoned_memory(), shared_runs(MOST_THREADS):
            return cases(mine, self.wishes, self.until)


def campaign(
    jobs: int, seed: int, count: int | None, wishes: Wishes, until: float | None, folder: Path
) -> Report:
    """Judge `count` cases from a seed on, or all that there is time for, by some processes."""
    work = [Job(number, jobs, seed, count, wishes, until, folder) for number in range(jobs)]
    if jobs == 1:
        return work[0].run()
    total = Report()
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for report in pool.imap_unordered(Job.run, work):
            total.findings.merge(report.findings)
            total.failed += report.failed
    return total
