"""`graphc import`: make a model file from an ONNX model."""

from __future__ import annotations

import argparse
from pathlib import Path

from graphc.cli.arguments import Command, show
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
    options="""
file FILE | the .onnx file
-o --out MODEL | the file to write (default: FILE as .gc)
@batch
--dim dimension NAME=SIZE list | the size of a dimension; may be repeated
--external-data flag | also read numbers from other files in the folder of FILE
@backend
@json
""",
)


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
