"""`graphc render`: draw a model, forward beside backward."""

from __future__ import annotations

import argparse

from graphc.cli.arguments import Command, Parser, file_name
from graphc.cli.model import compiled, load_model

COMMAND = Command(
    "render",
    order=50,
    help="draw a model",
    description="Draw a model, forward beside backward.",
    example="graphc render net.py:net -o net.svg",
)


def declare(parser: Parser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    parser.add_model()
    parser.add_passes()
    add(
        "-o",
        "--out",
        metavar="FILE",
        help="the file: .svg, .png, .pdf, .dot or .html (default: the net's name and .svg)",
    )
    add(
        "--unfold",
        action="store_true",
        help="draw every repetition of a block of layers; .html has both pictures",
    )


def run(args: argparse.Namespace) -> int:
    """Draw the model; the picture does not depend on the batch."""
    graph = load_model(args.model).graph
    plan = compiled(args, graph, batch=1)
    path = plan.render(args.out or f"{file_name(graph.name)}.svg", fold=not args.unfold)
    print(f"wrote {path}")
    return 0
