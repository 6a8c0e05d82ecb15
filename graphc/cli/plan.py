"""`graphc plan`: the instructions of a model, and the memory they need."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from graphc.base.errors import GraphError
from graphc.check.certificate.export import certify
from graphc.check.certificate.text import certificate_text
from graphc.cli.arguments import (
    add_backend,
    add_command,
    add_json,
    add_model,
    add_optimizer,
    nbytes,
    optimizer,
    positive,
)
from graphc.cli.model import load_model
from graphc.cli.output import print_json
from graphc.cli.scaling import bandwidth, latency, scaling
from graphc.compiler.compile import compile
from graphc.compiler.remat.fit import largest_batch, largest_batch_kept
from graphc.compiler.remat.told import computes_again, keeping_all, repeated
from graphc.files.writing import write_file
from graphc.ir.plan import Plan, Program

if TYPE_CHECKING:
    from graphc.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "plan",
        help="show instructions and memory",
        description="Show the instructions of a model, and the memory they need. With a "
        "budget, values are computed again where that makes the plan fit, and the cost is "
        "printed; the "
        "curve shows the cost of each budget. For several ranks, the plan of one of them is "
        "shown; with "
        "the bandwidth of a network, the time of a step is predicted instead.",
        example="graphc plan net.py:net --batch 32 --memory --optimizer adam\n"
        "graphc plan net.py:net --batch 512 --optimizer adam --curve --budget 8MB\n"
        "graphc plan net.py:net --optimizer adam --ranks 2 --bandwidth 10Gb/s",
    )
    add_model(parser)
    parser.add_argument("--batch", type=positive, default=128, help="rows (default: 128)")
    parser.add_argument("--memory", action="store_true", help="also show a line for each buffer")
    parser.add_argument(
        "--picture",
        metavar="FILE",
        help="also draw the arena, .svg of a step or .html of every program; or the curve",
    )
    parser.add_argument("--budget", type=nbytes, help="the most memory, such as 8MB or 8MiB")
    parser.add_argument(
        "--curve",
        action="store_true",
        help="memory against FLOPs instead; with a budget also the largest batch",
    )
    parser.add_argument(
        "--ranks",
        type=positive,
        default=1,
        metavar="N",
        help="ranks that share the batch (default: 1)",
    )
    parser.add_argument(
        "--bandwidth",
        type=bandwidth,
        help="such as 10Gb/s: predict a step on up to N ranks, from times measured here",
    )
    parser.add_argument(
        "--latency", type=latency, default=20e-6, help="latency of the network (default: 20us)"
    )
    parser.add_argument(
        "--certificate",
        metavar="FILE",
        help="also write what the plan claims, as JSON that `graphc verify` reads",
    )
    add_backend(parser)
    add_optimizer(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the programs and the memory report, or the curve."""
    chosen = optimizer(args.optimizer, None) if args.optimizer else None
    graph = load_model(args.model).graph
    if args.bandwidth is not None:
        return scaling(graph, chosen, args)
    plan = compile(
        graph,
        batch=args.batch,
        optimizer=chosen,
        backend=args.backend,
        threads=args.threads,
        budget=None if args.curve else args.budget,
        ranks=args.ranks,
    )
    if args.curve:
        return _curve(plan, args)
    picture = plan.memory.render(args.picture) if args.picture else None
    if args.certificate:
        write_file(args.certificate, [certificate_text(certify(plan)).encode()], GraphError)
    if args.json:
        print_json({**_data(plan, args.memory), "picture": picture and str(picture)})
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
    batches = _batches(plan, args.budget) if args.budget else None
    if args.json:
        found = {"net": curve.name, "batch": curve.batch, "program": curve.program}
        points = [{**asdict(point), "more": curve.more(point)} for point in curve.points]
        more = {"largest_batch": batches, "picture": picture and str(picture)}
        print_json({**found, "points": points, **more})
        return 0
    print(curve)
    if batches is not None:
        print(
            f"\nlargest batch within {args.budget:,} bytes: {batches['kept']:,}, or "
            f"{batches['computed_again']:,} by computing values again"
        )
    if picture is not None:
        print(f"\nwrote {picture}")
    return 0


def _batches(plan: Plan, budget: int) -> dict[str, int]:
    return {
        "kept": largest_batch_kept(plan, budget),
        "computed_again": largest_batch(plan, budget),
    }


def _data(plan: Plan, buffers: bool) -> dict[str, Any]:
    """Return the plan as data for programs; sizes are bytes."""
    memory = plan.memory
    parts = ("state", "feeds", "constants", "arena", "scratch", "gradients", "total")
    found: dict[str, Any] = {
        "net": plan.declared.name,
        "batch": plan.batch,
        "backend": plan.backend,
        "memory": {part: getattr(memory, part) for part in parts},
        "programs": {name: _program(program) for name, program in plan.programs.items()},
    }
    if computes_again(plan):
        told = repeated(plan, keeping_all(plan))
        found["computed_again"] = [{**asdict(each), "share": each.share} for each in told]
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
            {
                "kind": instr.kind,
                "kernel": instr.kernel,
                "node": instr.node,
                "nodes": instr.nodes,
                "ins": instr.ins,
                "outs": instr.outs,
            }
            for instr in program.instrs
        ],
    }
