"""`graphc bisect`: the pass and the rewrite that show a symptom, or the layer below the passes."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace
from functools import partial

from graphc.backends.backend import PORTABLE
from graphc.base.errors import GraphError
from graphc.check.validation import ValidationError
from graphc.check.validation.bisect import Command as Shell
from graphc.check.validation.bisect import Found, NotThePasses, Values, bisect
from graphc.check.validation.plans import validate_plan
from graphc.cli.arguments import Command, Parser, optimizer, picked, positive, show
from graphc.cli.data import first_rows
from graphc.cli.model import ROWS, load_model, of_user, passes_of
from graphc.compiler.compile import compile

COMMAND = Command(
    "bisect",
    order=90,
    help="find the pass, or the layer below, that causes a symptom",
    description="Find the first pass, and in it the first rewrite, that causes a symptom, by "
    "halving the list of passes that can be left out.\n\n"
    "Without --run, the symptom is a loss, output, gradient or next state that differs from the "
    "one without passes, in float64.  With --run, your command decides: it is run with "
    "GRAPHC_PASS_LIMIT in its environment, the number of passes that graphc may use, and shows "
    "the symptom if its exit status is not 0.\n\n"
    "If the passes of a model are right, its programs run, and every value is compared: a wrong "
    "one is the fault of lowering (the interpreter of kernels computes it, too), of the backend, "
    "of memory, or of the executor.  A command is run on the other backend.\n\n"
    "The exit status is 0 if the symptom does not occur, 1 if its cause was found, and 2 if passes "
    "are not the cause.",
    example='graphc bisect net.py:net --symptom loss\ngraphc bisect --run "python train.py"',
)


def declare(parser: Parser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help="file.py:function, or a saved model")
    add(
        "--symptom",
        metavar="WHAT",
        help="loss, output:NAME, gradient:NAME, update:NAME or nonfinite (default: any result)",
    )
    add(
        "--run",
        dest="command",
        metavar="COMMAND",
        help="a command that fails if the symptom occurs; python is the one that runs graphc",
    )
    parser.add_passes()
    add(
        "--tolerance",
        type=float,
        default=1e-6,
        help="relative to the largest number (default: 1e-6)",
    )
    add("--rows", type=positive, default=ROWS, help=f"how many rows are fed (default: {ROWS})")
    parser.add_data("feed its first rows instead of random numbers", required=False)
    parser.add_optimizer()
    parser.add_backend()
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Find the pass, or the layer below the passes, and print it."""
    symptom = _symptom(args)
    try:
        found = of_user(partial(bisect, symptom))
    except NotThePasses as error:
        if isinstance(symptom, Values) or replace(symptom, backend=PORTABLE)(None).bad:
            print(f"error: {error}", file=sys.stderr)
            return 2
        report = f"passes are not the cause; with GRAPHC_BACKEND={PORTABLE} it does not occur"
        show(args, {"found": True, "layer": "backend", "report": report}, report)
        return 1
    wrong = _below(args, symptom) if found is None and isinstance(symptom, Values) else None
    if wrong is not None:
        data = {"found": True, **picked(wrong, "layer", "kernel"), "report": str(wrong)}
        show(args, data, f"the passes are right; below them this is wrong:\n{wrong}")
        return 1
    data = {"found": found is not None, **(asdict(found) if found else {})}
    show(args, data, _text(found) if found else "the symptom does not occur with all passes")
    return 0 if found is None else 1


def _below(args: argparse.Namespace, symptom: Values) -> ValidationError | None:
    """Return the error of what the passes' graphs are compiled to, or None if that is right."""
    plan = compile(
        symptom.graph,
        batch=symptom.rows,
        optimizer=symptom.optimizer,
        passes=symptom.passes,
        backend=args.backend,
        threads=args.threads,
    )
    try:
        validate_plan(plan)
    except ValidationError as error:
        return error
    return None


def _symptom(args: argparse.Namespace) -> Values | Shell:
    if (args.model is None) == (args.command is None):
        raise GraphError(
            "bisect takes either a model or a command",
            hint='graphc bisect MODEL, or graphc bisect --run "python train.py"',
        )
    if args.command is not None:
        return Shell.of(args.command)
    model = load_model(args.model)
    feeds = None
    if args.data:
        plan = compile(model.graph, batch=args.rows, backend=PORTABLE)
        feeds = first_rows(plan, args, args.rows, model.columns)
    return Values(
        model.graph,
        args.rows,
        passes_of(args),
        optimizer(args.optimizer),
        args.symptom,
        args.tolerance,
        feeds,
    )


def _text(found: Found) -> str:
    lines = [
        f"with all passes {found.report}",
        f"first bad pass: {found.name!r}, number {found.position} of {found.count}",
        *(f"first bad rewrite: {text}" for text in found.rewrite),
        f"GRAPHC_PASS_LIMIT={found.bad} shows it, GRAPHC_PASS_LIMIT={found.good} does not",
    ]
    return "\n".join(lines)
