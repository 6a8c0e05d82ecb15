"""Compare graphc with its peers.

    python -m tests.tools.benchmarks.peers  # all workloads, all sides
    python -m tests.tools.benchmarks.peers tiny deep --only graphc,torch,bound --rounds 5
    python -m tests.tools.benchmarks.peers --quick  # some of each kind, in 5 minutes
    python -m tests.tools.benchmarks.peers --bf16  # products in bfloat16, in 5 minutes
    python -m tests.tools.benchmarks.peers mnist --beside 2  # beside two processes that never rest
    python -m tests.tools.benchmarks.peers tiny --every 5 --seconds 2  # a call every 5 ms

Sides whose package is missing are skipped with a line; `--python` names further interpreters
that may have it.  What the folder holds of other workloads stays in the report, so they can be
measured one after the other.  Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.tools.benchmarks.peers.results import Results
from tests.tools.benchmarks.peers.rooflines import profiled, roofline
from tests.tools.benchmarks.peers.rounds import Options, compare, machine
from tests.tools.benchmarks.peers.sides import chosen
from tests.tools.benchmarks.peers.table import table
from tests.tools.benchmarks.peers.workloads import EXPORTED, NAMES, WORKLOADS

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "workloads": ["tiny", "mnist", "lenet", "gpt", "lstm", "mobilenet-v2", "resnet18"],
        "only": "graphc,torch-fused,onnxruntime,openvino,bound",
        "rounds": 5,
        "seconds": 0.1,
        "minutes": 4.5,
    },
    "bf16": {
        "workloads": ["batch512", "gpt", "wide"],
        "only": "graphc,-graphc-numpy,torch-fused,onnxruntime,bf16",
        "rounds": 7,
        "threads": "2",
    },
}
"""What an option is short for; of --quick the last comparison may take half a minute."""
BUSY = 0.25
"""The share of a core that others may take before the report says so."""


def main(argv: list[str] | None = None) -> int:
    """Measure, print each table when it is there, write all of them and a JSON."""
    args = _parser().parse_args(argv)
    if args.preset:
        args = _parser(**PRESETS[args.preset]).parse_args(argv)
    sides = chosen(args.only)
    if not sides:
        sys.exit(f"no side is called {args.only!r}")
    pythons = [sys.executable, *args.python]
    threads = [int(part) for part in args.threads.split(",")]
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    options = Options(
        *(sides, threads, args.rounds, args.seconds, pythons, args.patience, out / "models"),
        beside=args.beside,
        period=args.every / 1e3,
    )
    results = Results.of(out, machine(), _busy_note())
    end = time.monotonic() + 60 * args.minutes
    for name in args.workloads or NAMES:
        for rows in _batches(name, args.modes):
            if time.monotonic() > end:
                print(f"{name}: left out, {args.minutes:g} minutes are over")
                break
            made = compare(name, rows, options, lambda line: print(line, flush=True))
            results.comparisons[made.title] = made
            if made.results:
                print(f"\n{table(made)}", flush=True)
            if not rows and made.best("graphc") and not args.preset:
                results.rooflines[name] = roofline(name, profiled(name, max(threads), args.rounds))
            results.write(out)
    if rounded := results.bfloat16():
        print(rounded)
    if args.docs:
        Path(args.docs).write_text(results.document(), encoding="utf-8")
    return 0


def _batches(name: str, modes: str) -> list[int]:
    """0 for training, and the batches of inference."""
    train = [0] if "train" in modes and name in WORKLOADS else []
    infer = (WORKLOADS.get(name) or EXPORTED[name]).infer
    return train + (list(infer) if "infer" in modes else [])


def _busy_note() -> str:
    """A sentence where other processes were at work when the run began."""
    try:
        before, start = _busy_seconds(), time.perf_counter()
        time.sleep(1)
        share = (_busy_seconds() - before) / (time.perf_counter() - start)
    except OSError:
        return ""
    if share < BUSY:
        return ""
    return f"The machine was not quiet: other processes took {share:.1f} cores at the start.\n"


def _busy_seconds() -> float:
    """Seconds that all cores together have worked, by Linux's count."""
    fields = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]
    ticks = [int(field) for field in fields]
    return (sum(ticks[:8]) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _parser(**defaults: Any) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.tools.benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(NAMES)}")
    for name, made in PRESETS.items():
        text = f"{', '.join(made['workloads'])} with some sides"
        add(f"--{name}", action="store_const", const=name, dest="preset", help=text)
    add("--minutes", type=float, default=math.inf, help="after which nothing new is begun")
    add("--beside", type=int, default=0, metavar="N", help="processes that never rest")
    add("--every", type=float, default=0, metavar="MS", help="a call each so many milliseconds")
    add("--only", metavar="SIDE,...", help='sides, or how names begin: "torch,-torch-compile"')
    add("--rounds", type=int, default=15, help="turns of each side (default: 15)")
    add("--seconds", type=float, default=0.15, help="of a turn (default: 0.15)")
    add("--threads", default="1,2", help="numbers of threads (default: 1,2)")
    add("--modes", default="train,infer", help="(default: train,infer)")
    add("--python", action="append", default=[], help="another interpreter; may be repeated")
    add("--patience", type=float, default=240, help="seconds to build a side (default: 240)")
    add("--out", default="peers-run", help="folder of peers.md and peers.json")
    add("--docs", metavar="FILE", help="write the report there, too")
    parser.set_defaults(**defaults)
    return parser


if __name__ == "__main__":
    sys.exit(main())
