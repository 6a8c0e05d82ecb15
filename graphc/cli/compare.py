"""`graphc compare`: the first step, and in it the first node, where two recorded runs differ."""

from __future__ import annotations

import argparse

from graphc.cli.arguments import Command, Parser, show
from graphc.cli.replay import run_data
from graphc.train.replay import compare_runs

COMMAND = Command(
    "compare",
    order=130,
    help="find where two recorded runs differ",
    description="Find the first step where two recorded runs differ, and in it the first node, in "
    "the order of the plan. Both runs repeat the steps around it.\n\n"
    "The exit status is 0 when the runs are equal, 1 when they differ, 2 for a mistake.",
    example="graphc compare graphc-run/record graphc-run/record",
    mistake=2,
)


def declare(parser: Parser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("run_1", metavar="RUN1", help="the folder of a recorded run")
    add("run_2", metavar="RUN2", help="the folder of another recorded run")
    add("--data", metavar="FILE", help="the training data of RUN1, if it does not hold them")
    add("--data2", metavar="FILE", help="the same for RUN2 (default: as --data)")
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Print the first difference; return 1 if there is one, else 0."""
    data = run_data(args.data)
    other = data if args.data2 is None else run_data(args.data2)
    found = compare_runs(args.run_1, args.run_2, data=data, other_data=other)
    data = {"equal": found is None, "difference": found}
    show(args, data, "the runs are equal, as far as both go" if found is None else found)
    return int(found is not None)
