"""`graphc export`: write a model as an ONNX file."""

from __future__ import annotations

import argparse

from graphc.cli.arguments import Command, Parser, file_name, show
from graphc.cli.model import load_model

COMMAND = Command(
    "export",
    order=140,
    help="write a model as an ONNX file",
    description="Write a model as an ONNX file, with the weights of a saved model, or the initial "
    "weights of a declared one. The file holds all outputs and losses, and the inputs that they "
    "need. This needs the extra `onnx`.",
    example="graphc export graphc-run/iris.gc -o iris.onnx",
)


def declare(parser: Parser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    parser.add_model()
    add("-o", "--out", metavar="FILE", help="the file to write (default: the net's name and .onnx)")
    add(
        "--training",
        action="store_true",
        help="the forward part of a training step, with dropout and batch statistics",
    )
    add(
        "--no-losses",
        action="store_true",
        help="leave out losses, and inputs such as labels that only they need",
    )
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Write the file."""
    from graphc.onnx import save

    model = load_model(args.model)
    out = args.out or f"{file_name(model.graph.name)}.onnx"
    losses = not args.no_losses
    path = save(model.saved or model.net, out, train=args.training, losses=losses)
    size = path.stat().st_size
    show(args, {"wrote": path, "bytes": size}, f"wrote {path}: {size:,} bytes")
    return 0
