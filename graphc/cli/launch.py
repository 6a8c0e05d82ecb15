"""`graphc launch`: run a command on several ranks, and restart them when one fails."""

from __future__ import annotations

import argparse
from pathlib import Path

from graphc.backends.backend import PORTABLE
from graphc.base.errors import GraphError
from graphc.cli import train
from graphc.cli.arguments import Command, Parser, add_command, positive, whole
from graphc.cli.data import feeds_of
from graphc.cli.table_net import chosen_model
from graphc.compiler.compile import compile
from graphc.runtime.distributed.mpi import Launch

COMMAND = Command(
    "launch",
    order=30,
    help="train on several ranks",
    description="Run `graphc train`, each rank on its part of every batch, or a Python script as "
    "several processes by MPI. Where one fails or hangs, all are ended, and started again as often "
    "as --max-restarts allows: `graphc train` from the last checkpoint, a script as before.",
    example="graphc launch -n 2 train net.py:net --data train.csv --out two",
)


def declare(parser: Parser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("-n", type=positive, default=2, metavar="N", help="ranks (default: 2)")
    add("--hosts", metavar="FILE", help="a file of the machines to use, one per line, for mpiexec")
    add(
        "--max-restarts",
        type=whole,
        default=0,
        metavar="R",
        help="restart from the last checkpoint after at most this many failures (default: 0)",
    )
    add("command", help="train, or the path of a script: main.py")
    add("arguments", nargs=argparse.REMAINDER, help="its arguments: graphc train --help")


def run(args: argparse.Namespace) -> int:
    """Run until the ranks are done, or have failed too often; return their exit status."""
    launch = Launch(args.n, args.hosts)
    words, again = _words(args)
    status = launch.run(words)
    for number in range(args.max_restarts):
        if not launch.may_go_on(status):
            break
        print(f"restart {number + 1} of {args.max_restarts}, after status {status}", flush=True)
        status = launch.run([*words, *again])
    if launch.may_go_on(status):
        raise GraphError(f"the ranks ended with status {status}", hint="their output is above")
    return status


def _words(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return the words after `python` that ranks run, and those that a restart adds."""
    words = [args.command, *args.arguments]
    if args.command.endswith(".py"):
        if not Path(args.command).is_file():
            raise GraphError(f"{args.command} does not exist", hint="the path of a Python script")
        return words, []
    if args.command != "train":
        raise GraphError(
            f"launch runs `graphc train` or a script, not {args.command!r}",
            hint="graphc launch -n 2 train net.py:net --data train.csv, or launch -n 2 main.py",
        )
    if args.max_restarts and not any(word.startswith("--checkpoint") for word in words):
        words.append("--checkpoint")
    _check(words)
    return ["-m", "graphc", *words], ["--resume"]


def _check(words: list[str]) -> None:
    """Check once, before ranks start, for wrong usage and for a model or data that do not fit.

    Arrays in a `.npz` file may be large, so they are left to the ranks.  Raise SystemExit as
    argparse does, GraphError, or UsersError.
    """
    parser = Parser(prog="graphc launch")
    add_command(parser.add_subparsers(), train)
    args = parser.parse_args(words)
    model = chosen_model(args)
    if Path(args.data).suffix.lower() != ".npz" or not Path(args.data).exists():
        plan = compile(model.graph, batch=1, backend=PORTABLE)
        feeds_of(plan, args, model.columns)
