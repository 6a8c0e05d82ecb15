"""`graphc export`: write a model as an ONNX file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from graphc.cli.arguments import add_command, add_json, add_model, file_name
from graphc.cli.model import load_model
from graphc.cli.output import print_json

if TYPE_CHECKING:
    from graphc.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "export",
        help="write a model as an ONNX file",
        description="Write a model as an ONNX file, with the weights of a saved model, or "
        "the initial weights of a declared one. The file holds all outputs and losses, and the "
        "inputs that they need. This needs the extra `onnx`.",
        example="graphc export graphc-run/iris.gc -o iris.onnx",
    )
    add_model(parser)
    parser.add_argument(
        "-o", "--out", metavar="FILE", help="where to (default: the net's name and .onnx)"
    )
    parser.add_argument(
        "--training",
        action="store_true",
        help="the forward part of a training step, with dropout and batch statistics",
    )
    parser.add_argument(
        "--no-losses",
        action="store_true",
        help="leave out losses, and inputs such as labels that only they need",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the file."""
    from graphc.onnx import save

    model = load_model(args.model)
    out = args.out or f"{file_name(model.graph.name)}.onnx"
    losses = not args.no_losses
    path = save(model.saved or model.net, out, train=args.training, losses=losses)
    if args.json:
        print_json({"wrote": str(path), "bytes": path.stat().st_size})
        return 0
    print(f"wrote {path}: {path.stat().st_size:,} bytes")
    return 0
