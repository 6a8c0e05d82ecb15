"""`graphc render`: draw a model, forward beside backward."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from graphc.cli.arguments import add_command, add_model, file_name
from graphc.cli.model import load_model
from graphc.compiler.compile import compile

if TYPE_CHECKING:
    from graphc.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "render",
        help="draw a model",
        description="Draw a model, forward beside backward.",
        example="graphc render net.py:net -o net.svg",
    )
    add_model(parser)
    parser.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        help="where to; .svg, .png, .pdf, .dot or .html (default: the net's name and .svg)",
    )
    parser.add_argument(
        "--unfold",
        action="store_true",
        help="draw every repetition of a block of layers; .html has both pictures",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw the model; the picture does not depend on the batch."""
    graph = load_model(args.model).graph
    plan = compile(graph, batch=1)
    path = plan.render(args.out or f"{file_name(graph.name)}.svg", fold=not args.unfold)
    print(f"wrote {path}")
    return 0
