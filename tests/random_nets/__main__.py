"""python -m tests.random_nets --nets 20000 --seed 0 --jobs 2."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
from collections import Counter
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
    """Draw and check the nets of some seeds."""
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


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign; the exit status is 1 when a net was wrong."""
    options = parsed(arguments)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found = Part([], Counter(), Counter(), 0, 0.0)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["GRAPHC_CACHE"] = cache
        for part in parts(options):
            for wrong in part.wrong:
                print(wrong, flush=True)
            found = Part(*(a + b for a, b in zip(found, part, strict=True)))
    tell(found, options)
    return 1 if found.wrong else 0


def parts(options: Any) -> Any:
    """Yield what workers find, some seeds at a time."""
    step = 20
    last = options.seed + options.nets
    ranges = [range(at, min(at + step, last)) for at in range(options.seed, last, step)]
    if options.jobs == 1 and options.nets <= 200:
        begin()
        yield from (work(seeds, options.only, options.found) for seeds in ranges)
        return
    # New processes now and then: machine code and libraries' caches are never let go of.
    workers = ProcessPoolExecutor(options.jobs, get_context("spawn"), begin, max_tasks_per_child=15)
    with workers as pool:
        futures = [pool.submit(work, seeds, options.only, options.found) for seeds in ranges]
        yield from (future.result() for future in futures)


def tell(found: Part, options: Any) -> None:
    """Print what came of a campaign, and write it down."""
    from .report import summary

    print(summary(found.drawn, found.checks, options.nets))
    print(
        f"{options.nets} nets, {len(found.wrong)} wrong, {found.blurred} could hardly be compared, "
        f"{found.seconds / options.nets:.3f} s each"
    )
    if options.json is not None:
        told = {
            "nets": options.nets,
            "wrong": found.wrong,
            "functions": found.drawn,
            "checks": found.checks,
        }
        options.json.write_text(json.dumps(told, indent=1))


def parsed(arguments: list[str] | None) -> Any:
    """Return the options."""
    parser = argparse.ArgumentParser("python -m tests.random_nets", description=__doc__)
    parser.add_argument("--nets", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first net; they count up")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", help="the name of one check, asked of every net")
    parser.add_argument("--json", type=Path, help="where to write the coverage")
    parser.add_argument("--found", type=Path, default=Path(tempfile.gettempdir()) / "random_nets")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
