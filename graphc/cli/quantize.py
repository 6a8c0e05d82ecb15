"""`graphc quantize`: write a trained model whose products are of int8."""

from __future__ import annotations

import argparse
from pathlib import Path

from graphc.base.errors import GraphError
from graphc.check.quantization import compare_quantized
from graphc.cli.arguments import Command, Parser, file_name, fraction, show
from graphc.cli.data import feeds_of, split
from graphc.cli.model import load_model
from graphc.files.serialize import save
from graphc.runtime.quantize import quantize

COMMAND = Command(
    "quantize",
    order=145,
    help="write a trained model in int8, a quarter of its size",
    description="Write a trained model for inference alone, whose matrix products and convolutions "
    "multiply int8: the weights take a quarter of the bytes. A part of the data calibrates it; on "
    "the rest, the error of each layer beside float32 is printed and, if there are labels, the "
    "accuracy. All commands that predict accept the file.",
    example="graphc quantize graphc-run/iris.gc --data train.csv -o iris.int8.gc",
)


def declare(parser: Parser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model that train or gc.save wrote")
    parser.add_data('.csv, .npz or "digits": data like those of training', required=True)
    add("-o", "--out", metavar="FILE", help="the file to write (default: NET.int8.gc)")
    add(
        "--validation",
        type=fraction,
        default=0.2,
        metavar="PART",
        help="the part of the rows to compare on (default: 0.2)",
    )
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Quantize, compare, and write the file."""
    model = load_model(args.model)
    if model.saved is None:
        raise GraphError(
            f"{args.model} declares a net without trained weights",
            hint="graphc train writes a model that can be quantized: graphc-run/NAME.gc",
        )
    feeds, _ = feeds_of(model.saved.plan, args, model.columns)
    calibration, rest = split(feeds, args.validation, 0) if args.validation else (feeds, feeds)
    quantized = quantize(model.saved, calibration)
    report = compare_quantized(model.saved, quantized, rest)
    path = Path(args.out or f"{file_name(model.graph.name)}.int8.gc")
    save(path, quantized)
    size = path.stat().st_size
    text = f"{report}\nwrote {path}: {size:,} bytes"
    show(args, {"report": report, "wrote": path, "bytes": size}, text)
    return 0
