"""Nets drawn and checked, by one process or several."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple


class Part(NamedTuple):
    """What a worker found on some seeds."""

    wrong: list[str]
    drawn: Counter[str]
    checks: Counter[str]
    blurred: int
    seconds: float


def begin() -> None:
    """Give a worker one thread for its libraries; what it leaves unfinished is not printed."""
    import numpy as np

    np.seterr(all="ignore")
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)


def work(seeds: range, only: str | None, folder: Path) -> Part:
    """Draw and check the nets of some seeds, or their families, on memory that is poisoned."""
    from tests.poisoned import poisoned_memory

    from . import family_check

    with poisoned_memory():
        if only == "families":
            return family_check.work(seeds, folder)
        return _work(seeds, only, folder)


def _work(seeds: range, only: str | None, folder: Path) -> Part:
    from .check import Outcome, check
    from .draw import draw
    from .report import functions, write
    from .shrink import shrunk

    before = seconds()
    part = Part([], Counter(), Counter(), 0, 0.0)
    blurred = 0
    for seed in seeds:
        try:
            case = draw(seed)
        except Exception as error:
            part.wrong.append(f"seed {seed}: declaring it: {error}")
            continue
        outcome: Outcome = check(case, only)
        part.drawn.update(functions(case))
        part.checks.update(outcome.checks)
        blurred += outcome.blurred
        if outcome.wrong:
            path = write(shrunk(case, outcome), outcome, folder)
            part.wrong.append(f"seed {seed}, {outcome.checks[-1]}: {outcome.wrong}\n  {path}")
    return part._replace(blurred=blurred, seconds=seconds() - before)


def seconds() -> float:
    """Return the processor's time of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def parts(options: Any) -> Iterator[Part]:
    """Yield what workers find, some seeds at a time."""
    step = 20
    last = options.seed + options.nets
    ranges = [range(at, min(at + step, last)) for at in range(options.seed, last, step)]
    if options.jobs == 1 and options.nets <= 200:
        begin()
        yield from (work(seeds, options.only, options.found) for seeds in ranges)
        return
    # New processes now and then: machine code and libraries' caches are never let go of.
    for some in batched(ranges, 15 * options.jobs):
        with ProcessPoolExecutor(options.jobs, get_context("spawn"), begin) as workers:
            futures = [workers.submit(work, seeds, options.only, options.found) for seeds in some]
            yield from (future.result() for future in futures)


def batched(ranges: list[range], size: int) -> Iterator[list[range]]:
    """Yield so many ranges at a time."""
    for at in range(0, len(ranges), size):
        yield ranges[at : at + size]
