"""`graphc plan`: the instructions of a model, and the memory they need."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from graphc.base.errors import GraphError
from graphc.check.certificate.export import certify
from graphc.check.certificate.text import certificate_text
from graphc.cli.arguments import Command, Parser, nbytes, picked, positive, print_json, show
from graphc.cli.model import compiled, load_model, random_feeds
from graphc.compiler.plan import Plan
from graphc.compiler.remat.fit import largest_batch, largest_batch_kept
from graphc.compiler.remat.recomputation import keeping_all, recomputes, repeated
from graphc.files.disk import write_file
from graphc.ir.graph import Graph
from graphc.kernels.program import Program
from graphc.runtime.distributed.predict import Network, Prediction, counts, predict

COMMAND = Command(
    "plan",
    order=60,
    help="show instructions and memory",
    description="Show the instructions of a model, and the memory they need. With a budget, the "
    "plan recomputes values where that makes it fit, and the cost is printed; the curve shows the "
    "cost of each budget. For several ranks, the plan of one of them is shown; with the bandwidth "
    "of a network, the time of a step is predicted instead.",
    example="graphc plan net.py:net --batch 32 --memory --optimizer adam\n"
    "graphc plan net.py:net --batch 512 --optimizer adam --curve --budget 8MB\n"
    "graphc plan net.py:net --optimizer adam --ranks 2 --bandwidth 10Gb/s",
)


def declare(parser: Parser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    parser.add_model()
    parser.add_batch()
    add("--memory", action="store_true", help="also show a line for each buffer")
    add(
        "--picture",
        metavar="FILE",
        help="also draw the arena, .svg of a step or .html of every program; or the curve",
    )
    add("--budget", type=nbytes, help="the most memory, such as 8MB or 8MiB")
    add(
        "--curve",
        action="store_true",
        help="memory against FLOPs instead; with a budget also the largest batch",
    )
    add(
        "--ranks",
        type=positive,
        default=1,
        metavar="N",
        help="ranks that share the batch (default: 1)",
    )
    add(
        "--bandwidth",
        type=bandwidth,
        help="such as 10Gb/s: predict a step on up to N ranks, from times measured here",
    )
    add("--latency", type=latency, default=20e-6, help="latency of the network (default: 20us)")
    add(
        "--certificate",
        metavar="FILE",
        help="also write the plan's certificate, as JSON that `graphc verify` reads",
    )
    parser.add_backend()
    parser.add_precision()
    parser.add_passes()
    parser.add_optimizer()
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Print the programs and the memory report, or the curve."""
    graph = load_model(args.model).graph
    if args.bandwidth is not None:
        return _scaling(graph, args)
    budget = None if args.curve else args.budget
    plan = compiled(args, graph, budget=budget, ranks=args.ranks)
    if args.curve:
        return _curve(plan, args)
    picture = plan.memory.render(args.picture) if args.picture else None
    if args.certificate:
        write_file(args.certificate, [certificate_text(certify(plan)).encode()], GraphError)
    if args.json:
        print_json({**_data(plan, args.memory), "picture": picture})
        return 0
    print(plan.report(), plan, plan.memory, sep="\n\n")
    if args.memory:
        print(f"\n{plan.memory.table()}")
    for path in filter(None, (picture, args.certificate)):
        print(f"\nwrote {path}")
    return 0


def _curve(plan: Plan, args: argparse.Namespace) -> int:
    """Print memory against FLOPs, and the largest batch that fits the budget."""
    curve = plan.memory.curve()
    picture = curve.plot(args.picture) if args.picture else None
    batches = None
    if args.budget:
        kept, again = largest_batch_kept(plan, args.budget), largest_batch(plan, args.budget)
        batches = {"kept": kept, "computed_again": again}
    if args.json:
        found = {"net": curve.name, "batch": curve.batch, "program": curve.program}
        points = [{**asdict(point), "more": curve.more(point)} for point in curve.points]
        more = {"largest_batch": batches, "picture": picture}
        print_json({**found, "points": points, **more})
        return 0
    print(curve)
    if batches is not None:
        print(
            f"\nlargest batch within {args.budget:,} bytes: {batches['kept']:,}, or "
            f"{batches['computed_again']:,} by recomputing values"
        )
    if picture is not None:
        print(f"\nwrote {picture}")
    return 0


def _data(plan: Plan, buffers: bool) -> dict[str, Any]:
    """Return the plan as data for programs; sizes are bytes."""
    memory = plan.memory
    parts = ("state", "feeds", "results", "constants", "arena", "scratch", "gradients", "total")
    found: dict[str, Any] = {
        "net": plan.declared.name,
        "batch": plan.batch,
        "backend": plan.backend,
        "memory": picked(memory, *parts),
        "programs": {name: _program(program) for name, program in plan.programs.items()},
    }
    if recomputes(plan):
        values = repeated(plan, keeping_all(plan))
        found["computed_again"] = [{**asdict(each), "share": each.share} for each in values]
    if buffers:
        found["buffers"] = [
            {**asdict(line), "loc": line.loc and str(line.loc)} for line in memory.buffers()
        ]
    return found


def _program(program: Program) -> dict[str, Any]:
    return {
        "nodes": len(program.graph),
        "arena": program.arena.nbytes,
        "peak": program.arena.peak,
        "instructions": [
            picked(instr, "kind", "kernel", "node", "nodes", "ins", "outs")
            for instr in program.instrs
        ],
    }


_MULTIPLES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_PARTS = {"": 1.0, "m": 1e3, "u": 1e6, "n": 1e9}


def bandwidth(text: str) -> float:
    """Return the bytes per second of 10Gb/s or 1.2GB/s: b is bits, B is bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMG]?)(b|B)/s", text.strip())
    if match is None or not float(match[1]):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a bandwidth; examples are 10Gb/s and 1.2GB/s"
        )
    return float(match[1]) * _MULTIPLES[match[2]] / (8 if match[3] == "b" else 1)


def latency(text: str) -> float:
    """Return the seconds of 20us or 1.5ms."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([mun]?)s", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; examples are 20us and 1.5ms")
    return float(match[1]) / _PARTS[match[2]]


def _scaling(graph: Graph, args: argparse.Namespace) -> int:
    """Print the predicted time of a step for each number of ranks."""
    if args.optimizer is None:
        raise GraphError("ranks train, so there must be an optimizer", hint="--optimizer momentum")
    if args.ranks > args.batch:
        raise GraphError(
            f"{args.batch} rows are too few for {args.ranks} ranks",
            hint="--batch is the rows of a step, of all ranks together",
        )

    def make(ranks: int) -> Plan:
        return compiled(args, graph, ranks=ranks)

    network = Network(args.bandwidth, args.latency)
    alone = make(1)
    types = {name: alone.declared[name].type.dtype for name in alone.input_names}
    feeds = {k: a.astype(types[k]) for k, a in random_feeds(alone, args.batch).items()}
    found = predict(make, feeds, network, counts(args.ranks))
    rows = {
        way: [{**asdict(each), "hidden": each.hidden} for each in some]
        for way, some in found.items()
    }
    data = {"net": graph.name, "batch": args.batch, "network": network, **rows}
    show(args, data, _scaling_table(graph.name, args.batch, network, found))
    return 0


def _scaling_table(
    name: str, batch: int, network: Network, found: Mapping[str, Sequence[Prediction]]
) -> str:
    rate = f"{network.bandwidth * 8e-9:g} Gb/s and {network.latency * 1e6:g} us"
    lines = [
        f"a step of {name!r}, {batch} rows over all ranks, on a network of {rate}; work measured",
        "here, times in ms; blocking: with nothing hidden, as on one machine",
    ]
    for way, rows in found.items():
        lines += [
            "",
            f"{way:<6}{'rows':>7}{'work':>10}{'exchange':>10}{'hidden':>8}{'step':>10}"
            f"{'blocking':>10}{'faster':>8}{'efficiency':>12}",
        ]
        lines += [_scaling_line(row, rows[0].step) for row in rows]
    return "\n".join(lines)


def _scaling_line(row: Prediction, alone: float) -> str:
    faster = alone / row.step
    times = [f"{1e3 * value:>10.3f}" for value in (row.work, row.exchange)]
    later = [f"{1e3 * value:>10.3f}" for value in (row.step, row.blocking)]
    return (
        f"{row.ranks:<6}{row.rows:>7}{''.join(times)}{row.hidden:>8.0%}{''.join(later)}"
        f"{faster:>8.2f}{faster / row.ranks:>12.0%}"
    )
