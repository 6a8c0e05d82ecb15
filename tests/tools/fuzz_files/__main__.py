"""Change model files, texts, tables and descriptions of runs, and read them.

    python -m tests.tools.fuzz_files --runs 1000000

Each file depends on its number alone, so that a run is the same again; `--first` begins at another
number.  With `--structured` models are nested, repeated and enlarged, those of ONNX as well.  Files
at fault are written to the folder `faults`.  `--coverage N` counts how many of the readers' lines N
files reach, one after the other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.tools.fuzz_files.coverage import coverage
from tests.tools.fuzz_files.run import run


def main() -> int:
    """Report what happened; 1 where anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--coverage", type=int, default=0, metavar="N")
    parser.add_argument("--structured", action="store_true")
    parser.add_argument("--faults", type=Path, default=Path("faults"))
    args = parser.parse_args()
    if args.coverage:
        for line in coverage(args.coverage, args.first):
            print(line)
        return 0
    found = run(
        args.runs, args.first, report=20_000, faults=args.faults, structured=args.structured
    )
    print(
        f"{found.runs:,} files in {found.seconds:.0f} s, {found.runs / found.seconds:,.0f} a second"
    )
    for kind in sorted({*found.read, *found.refused}):
        print(f"  {kind:<8} {found.read[kind]:>9,} read  {found.refused[kind]:>9,} refused")
    print(f"longest {found.longest:.2f} s, grown by {found.peak >> 20} MB in all")
    print(f"{len(found.faults)} faults")
    for what in sorted({fault.what for fault in found.faults}):
        print(f"  {what}")
    return int(bool(found.faults))


if __name__ == "__main__":
    raise SystemExit(main())
