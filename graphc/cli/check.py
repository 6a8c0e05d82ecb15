"""`graphc check`: verify a model, and check its gradients or the passes on it."""

from __future__ import annotations

import argparse
from collections import Counter
from functools import partial
from typing import Any

from graphc.check.grad_check import GradReport, grad_check
from graphc.check.validation.explain import ValidationError
from graphc.check.validation.validate import validate_model
from graphc.cli.arguments import Command, Parser, print_json, show
from graphc.cli.data import first_rows
from graphc.cli.model import ROWS, load_model, of_user, passes_of, random_feeds
from graphc.compiler.compile import compile
from graphc.ir.graph import Graph
from graphc.ir.verify import verify

COMMAND = Command(
    "check",
    order=80,
    help="check graph and gradients",
    description="Verify the graph, compile it, and compare the gradient of every parameter with "
    "central differences in float64; exit status 1 when something is wrong.\n\n"
    "With --passes, every pass of the compiler is validated instead, on random inputs: for "
    "inference, frozen inference, training, and the update of each optimizer.  For a pass that "
    "fails, a test with the smallest failing graph is written to graphc-failures.",
    example="graphc check net.py:net --data train.csv\ngraphc check net.py:net --passes",
)


def declare(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_model()
    parser.add_data(f"feed its first {ROWS} rows instead of random numbers", required=False)
    parser.add_argument(
        "--passes",
        nargs="?",
        const="",
        metavar="FILE:NAME",
        help="validate the default passes, or those of a gc.passes list in your file",
    )
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Check the model and print a line for each parameter."""
    model = load_model(args.model)
    graph = model.graph
    verify(graph)
    if args.passes is not None:
        return _check_passes(args, graph)
    plan = compile(graph, batch=ROWS)
    feeds = first_rows(plan, args, ROWS, model.columns) or random_feeds(plan)
    if not args.json:
        print(f"graph {graph.name!r}: ok, {len(graph)} nodes; it compiles")
    state = model.saved.state if model.saved is not None else None
    report = grad_check(model.net, feeds, wrt=plan.parameter_names, state=state)
    show(args, _data(graph, report), report)
    return 0 if report.ok else 1


def _check_passes(args: argparse.Namespace, graph: Graph) -> int:
    try:
        judged = of_user(partial(validate_model, graph, ROWS, passes_of(args)))
    except ValidationError as error:
        if not args.json:
            raise
        failed = {"error": error.sentence.partition("\n")[0], "test": error.path}
        print_json({"net": graph.name, "ok": False, **failed, "rewrite": error.rewrite})
        return 1
    counts = Counter(judged.passes)
    redrawn = sum(draw.redrawn for draw in judged.draws)
    lines = [f"passes of {graph.name!r}: {judged}"]
    lines.extend(f"  {name:<28} {count}" for name, count in counts.items())
    data = {"net": graph.name, "ok": True, "judged": counts, "redrawn": redrawn}
    show(args, data, "\n".join(lines))
    return 0


def _data(graph: Graph, report: GradReport) -> dict[str, Any]:
    """Return the report as data for programs."""
    return {
        "net": graph.name,
        "nodes": len(graph),
        "ok": report.ok,
        "tolerance": report.tolerance,
        "gradients": [
            {
                "name": item.name,
                "ok": item.worst.error <= report.tolerance,
                "error": item.worst.error,
                "index": item.worst.index,
                "by_rules": item.worst.ours,
                "by_differences": item.worst.numeric,
                "checked": len(item.entries),
                "size": item.size,
                "declared": item.loc and str(item.loc),
            }
            for item in report.checked
        ],
        "unreached": report.unreached,
        "suspect": report.suspect and str(report.suspect),
    }
