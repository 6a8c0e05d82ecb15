"""`graphc plan`: the instructions of a model, and the memory they need."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from graphc.cli.arguments import add_backend, add_model, add_optimizer, optimizer, positive
from graphc.cli.model import load_model
from graphc.compiler import compile

if TYPE_CHECKING:
    from graphc.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("plan", help="show instructions and memory", description=__doc__)
    add_model(parser)
    parser.add_argument("--batch", type=positive, default=128, help="rows (default: 128)")
    parser.add_argument("--memory", action="store_true", help="a line for each buffer, too")
    parser.add_argument(
        "--picture",
        metavar="FILE",
        help="draw the arena, too: .svg for a step's, .html for every program's",
    )
    add_backend(parser)
    add_optimizer(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the programs and the memory report."""
    chosen = optimizer(args.optimizer, None) if args.optimizer else None
    plan = compile(
        load_model(args.model).graph,
        batch=args.batch,
        optimizer=chosen,
        backend=args.backend,
        threads=args.threads,
    )
    print(plan.report(), plan, plan.memory, sep="\n\n")
    if args.memory:
        print(f"\n{plan.memory.table()}")
    if args.picture:
        print(f"\nwrote {plan.memory.render(args.picture)}")
    return 0
