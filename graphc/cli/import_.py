"""`graphc import`: make a model file from an ONNX model."""

from __future__ import annotations

import argparse
from pathlib import Path

from graphc.cli.arguments import Command, Parser, show
from graphc.cli.model import compiled
from graphc.files.serialize import save
from graphc.runtime.executor import Executor

COMMAND = Command(
    "import",
    order=150,
    help="make a model from an ONNX file",
    description="Make a model, which all other commands take, from an ONNX file. Its weights can "
    "be trained further. The first dimension of its inputs stays open if it has a name and no "
    "size; other dimensions that have a name must be given a size. This needs the extra `onnx`.",
    example="graphc import iris.onnx -o iris.gc --batch 32",
)


def declare(parser: Parser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("file", metavar="FILE", help="the .onnx file")
    add("-o", "--out", metavar="MODEL", help="the file to write (default: FILE as .gc)")
    parser.add_batch()
    add(
        "--dim",
        action="append",
        type=_dimension,
        default=[],
        metavar="NAME=SIZE",
        help="the size of a dimension; may be repeated",
    )
    add(
        "--external-data",
        action="store_true",
        help="also read numbers from other files in the folder of FILE",
    )
    parser.add_backend()
    parser.add_json()


def _dimension(text: str) -> tuple[str, int]:
    name, sign, size = text.rpartition("=")
    if not sign or not name or not size.isdecimal() or int(size) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a dimension; an example is sequence=128")
    return name, int(size)


def run(args: argparse.Namespace) -> int:
    """Read, compile, and write the model."""
    from graphc.onnx import load

    net = load(args.file, dims=dict(args.dim), external_data=args.external_data)
    plan = compiled(args, net.graph())
    path = save(args.out or Path(args.file).with_suffix(".gc"), Executor(plan))
    graph = net.graph()
    inputs = {node.name: str(node.type) for node in graph if node.op.is_input}
    outputs = {name: str(graph[value].type) for name, value in graph.outputs.items()}
    numbers = sum(node.type.size(1) for node in graph if node.op.is_parameter)
    data = {"wrote": path, "inputs": inputs, "outputs": outputs, "parameters": numbers}
    lines = [f"wrote {path}: {numbers:,} numbers to train"]
    lines.extend(f"  input  {name} {type}" for name, type in inputs.items())
    lines.extend(f"  output {name} {type}" for name, type in outputs.items())
    show(args, data, "\n".join(lines))
    return 0
