"""A campaign's seeds, shared among processes."""

from __future__ import annotations

import itertools
import multiprocessing
from dataclasses import dataclass

from graphc.backends.native import usable_cores
from tests.fuzz.campaign import Findings, cases
from tests.fuzz.draw import Wishes

MOST_THREADS = 4


@dataclass(frozen=True)
class Job:
    """Every so manieth seed from its number on, so that jobs share the work evenly."""

    number: int
    jobs: int
    seed: int
    count: int | None
    wishes: Wishes
    until: float | None

    def run(self) -> Findings:
        """Judge the cases of this job."""
        last = None if self.count is None else self.seed + self.count
        seeds = itertools.count(self.seed) if last is None else range(self.seed, last)
        known = usable_cores.cores
        usable_cores.cores = lambda: MOST_THREADS  # on fewer cores they take turns
        try:
            mine = itertools.islice(seeds, self.number, None, self.jobs)
            return cases(mine, self.wishes, self.until)
        finally:
            usable_cores.cores = known


def campaign(
    jobs: int, seed: int, count: int | None, wishes: Wishes, until: float | None
) -> Findings:
    """Judge `count` cases from a seed on, or all that there is time for, by some processes."""
    work = [Job(number, jobs, seed, count, wishes, until) for number in range(jobs)]
    if jobs == 1:
        return work[0].run()
    total = Findings()
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for findings in pool.imap_unordered(Job.run, work):
            total.merge(findings)
    return total
