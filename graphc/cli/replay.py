"""`graphc replay`: repeat a step of a recorded run, and inspect any node of it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from graphc.base.errors import GraphError
from graphc.cli.arguments import Command, Parser, picked, positive, show
from graphc.data import load_data
from graphc.files.disk import write_file
from graphc.ir.graph import Node
from graphc.ir.text.graph import name_text
from graphc.train.nonfinite import described
from graphc.train.replay import Replay, replay

COMMAND = Command(
    "replay",
    order=120,
    help="repeat a step of a recorded run",
    description="Repeat one step of a recorded run, from the newest state before it, on the same "
    "rows in the same order, and show the value of every node in it, or of one node.\n\n"
    "The exit status is 0 when loss and state are as they were recorded, to the bit, 1 when they "
    "are not, 2 for a mistake.",
    example="graphc replay graphc-run/record --step 2\n"
    "graphc replay graphc-run/record --step 2 --node d_scores --out d_scores.npy",
    mistake=2,
)


def declare(parser: Parser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("folder", metavar="RUN", help="the folder of a recorded run")
    add("--step", type=positive, required=True, help="the number of the step, from 1")
    add("--node", metavar="NAME", help="a value, gradient (d_NAME) or update (NAME.next)")
    add("--out", metavar="FILE.npy", help="save the value of --node")
    add(
        "--data",
        metavar="FILE",
        help="the training data, if the run does not hold them: .npz or a folder of part files",
    )
    parser.add_json()


def run_data(source: str | None) -> Any:
    """Return the data that --data names, or None for the data in the record of the run."""
    if source is None:
        return None
    return source if Path(source).is_dir() else load_data(source)


def run(args: argparse.Namespace) -> int:
    """Print the step, or one node of it; return 1 if it is not as recorded."""
    if args.out is not None and args.node is None:
        raise GraphError("replay: --out saves the value of a node", hint="name it with --node")
    found = replay(args.folder, step=args.step, data=run_data(args.data))
    nodes = found.nodes if args.node is None else (found.node(args.node),)
    shown = {n.name: _shown(found, n) for n in nodes if not n.op.is_constant}
    if args.out is not None:
        data = BytesIO()
        np.save(data, found.value(args.node), allow_pickle=False)
        write_file(args.out, [data.getbuffer()], GraphError)
    show(args, {**_data(found), "nodes": shown, "file": args.out}, "\n".join(_lines(found, shown)))
    if args.out is not None and not args.json:
        print(f"wrote {args.out}")
    return int(found.unlike is not None)


def _lines(found: Replay, shown: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines about the step, then one for each node."""
    yield (
        f"step {found.step}: epoch {found.epoch}, batch {found.batch}, {found.rows} rows, "
        f"loss {found.loss:.6g}, {'as' if found.unlike is None else 'NOT as'} recorded"
    )
    if found.unlike is not None:
        yield f"  the first step that is not as recorded is {found.unlike}"
        yield from (f"  recorded and now: {text}" for text in found.made_otherwise)
    named = {name_text(name): node for name, node in shown.items()}
    width = max(map(len, named), default=0)
    for name, node in named.items():
        note = "" if node["exact"] else "  (by reference rules)"
        yield f"{node['part']:<9} {name:<{width}}  {node['value']}{note}"


def _shown(found: Replay, node: Node) -> dict[str, Any]:
    return {
        "part": found.part(node.name),
        "value": described(found.value(node.name)),
        "exact": found.exact(node.name),
    }


def _data(found: Replay) -> dict[str, Any]:
    return {
        **picked(found, "step", "epoch", "batch", "rows", "data_rows", "loss"),
        "as_recorded": found.unlike is None,
        **picked(found, "unlike", "made_otherwise"),
    }
