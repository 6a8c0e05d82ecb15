"""python -m tests.tools.random_nets --nets 20000 --seed 0 --jobs 2."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from .campaign import Part, parts


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign; the exit status is 1 when a net was wrong."""
    options = parsed(arguments)
    found = Part([], Counter(), Counter(), 0, 0.0)
    for part in parts(options):
        for wrong in part.wrong:
            print(wrong, flush=True)
        found = Part(*(a + b for a, b in zip(found, part, strict=True)))
        if options.jobs > 1:
            print(f"{sum(found.checks.values()):,} checks, {len(found.wrong)} wrong", flush=True)
    tell(found, options)
    return 1 if found.wrong else 0


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
    parser = argparse.ArgumentParser("python -m tests.tools.random_nets", description=__doc__)
    parser.add_argument("--nets", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first net; they count up")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", help="the name of one check, asked of every net; or families")
    parser.add_argument("--json", type=Path, help="where to write the coverage")
    parser.add_argument("--found", type=Path, default=Path(tempfile.gettempdir()) / "random_nets")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["GRAPHC_CACHE"] = cache
        status = main()
    sys.exit(status)
