"""`graphc bench`: the speed of a model, its time by instruction, and its distance from the peak."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from graphc.backends.backend import USUAL
from graphc.base.errors import GraphError
from graphc.base.usable_cores import thread_count
from graphc.cli.arguments import Command, Parser, optimizer, picked, positive, print_json
from graphc.cli.model import compiled, load_model, random_feeds
from graphc.compiler.cost import program_cost
from graphc.compiler.plan import Plan, program_name
from graphc.ir.graph import Graph
from graphc.runtime.executor import Executor
from graphc.view.measure import RULE, Instructions, Peak, await_idle, how, measure_peak, median_time
from graphc.view.profile import Profile, table

TURN_SECONDS = 0.05

COMMAND = Command(
    "bench",
    order=110,
    help="time a model",
    description="Time a training step, or inference for a net without loss, on each backend in "
    "turn; then each instruction: its share, its operations and bytes, and how near they come to "
    "the measured peak of this machine.",
    example="graphc bench net.py:net --batch 32 --trace trace.json",
)


def declare(parser: Parser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    parser.add_model()
    parser.add_batch()
    parser.add_threads()
    parser.add_precision()
    add("--rounds", type=positive, default=15, help="how often each backend is timed (default: 15)")
    add("--backend", choices=USUAL, help="whose instructions to show (default: the faster one)")
    add("--picture", metavar="FILE", help="also draw where the time goes: .svg or .html")
    add("--trace", metavar="FILE", help="also write a trace for Perfetto or chrome://tracing")
    parser.add_passes()
    parser.add_optimizer()
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Measure, and print both tables."""
    plans, missing = _plans(args, load_model(args.model).graph)
    if missing and not args.json:
        print(f"{missing}\n")
    chosen = args.backend or next(iter(plans))
    if chosen not in plans:
        raise GraphError(f"there is no {chosen} backend here", hint="leave --backend out")
    feeds = random_feeds(next(iter(plans.values())), args.batch)
    name = program_name(plans[chosen])
    instructions = Instructions(plans[chosen], name, feeds, args.batch)
    sides = {backend: _call(plan, feeds) for backend, plan in plans.items()}
    times = _in_turns(sides, instructions, args.rounds)
    await_idle()
    peak = measure_peak(thread_count(plans[chosen].options.threads))
    seconds = tuple(instructions.medians)
    found = Profile(plans[chosen], name, instructions.n, args.rounds, seconds, peak)
    if args.json:
        files = _files(args, found)
        print_json({**_data(found, times), "missing": missing, "files": list(files)})
        return 0
    print(_whole(plans, times, name, args.batch, peak))
    print(f"\neach instruction of {name!r} on {chosen}, called by itself:\n")
    print(table(found.timed, peak))
    print(f"\nbound by {RULE}")
    for file in _files(args, found):
        print(f"\nwrote {file}")
    return 0


def _files(args: argparse.Namespace, found: Profile) -> Iterator[Path]:
    """Write the other files that were asked for, and yield their paths."""
    if args.picture:
        yield found.render(args.picture)
    if args.trace:
        yield found.chrome_trace(args.trace)


def _data(found: Profile, times: Mapping[str, float]) -> dict[str, Any]:
    """Return the report as data for programs, in seconds, operations and bytes."""
    return {
        "net": found.plan.declared.name,
        "program": found.name,
        "rows": found.n,
        "seconds": dict(times),
        "work": program_cost(found.program, found.n),
        "peak": found.peak,
        "backend": found.plan.backend,
        "instructions": [
            {
                **picked(timed.instr, "node", "kernel"),
                **picked(timed, "nodes", "seconds"),
                **asdict(timed.cost),
                "roof": timed.roof,
                "bound": timed.verdict,
            }
            for timed in found.timed
        ],
    }


def _plans(args: argparse.Namespace, graph: Graph) -> tuple[dict[str, Plan], str | None]:
    """Return a plan for each available backend, and the reason if one is missing."""
    rule = optimizer(args.optimizer or ("momentum" if graph.losses else None))
    plans, missing = {}, None
    for backend in USUAL:
        try:
            plans[backend] = compiled(args, graph, optimizer=rule, backend=backend)
        except GraphError as error:
            if not error.sentence.startswith(f"there is no {backend} backend"):
                raise
            missing = error.sentence
    return plans, missing


def _call(plan: Plan, feeds: Mapping[str, Any]) -> Callable[[], object]:
    """Return a function that runs a step on these feeds or, without an optimizer, inference."""
    ex = Executor(plan)
    if plan.rules:
        return lambda: ex.step(feeds)
    return lambda: ex.forward(feeds, copy=False)


def _in_turns(
    sides: Mapping[str, Callable[[], object]], instructions: Instructions, rounds: int
) -> dict[str, float]:
    """Return the median seconds of each side's call; rounds alternate with instructions."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, call in sides.items():
            await_idle()
            found[name].append(median_time(call, TURN_SECONDS))
        await_idle()
        instructions.run(TURN_SECONDS)
    return {name: median(times) for name, times in found.items()}


def _whole(
    plans: Mapping[str, Plan], times: Mapping[str, float], name: str, n: int, peak: Peak
) -> str:
    """Return lines about the time of the whole program, and the least time of its products."""
    plan = next(iter(plans.values()))
    work = program_cost(plan.programs[name], n)
    bound = work.products / peak.flops
    threads = f"{peak.threads} thread{'s' if peak.threads > 1 else ''}"
    lines = [
        f"{name!r} of {plan.declared.name!r} at {n} rows: {work.flops / 1e6:.2f} MFLOP, "
        f"{work.products / 1e6:.2f} of them in matrix products",
        f"peak of {threads}: {peak.flops / 1e9:.0f} GFLOP/s ({how()}), "
        f"{peak.bytes / 1e9:.0f} GB/s; the products take {bound * 1e6:.1f} us at least",
    ]
    for backend, seconds in times.items():
        ratio = f", {seconds / bound:.2f} of the bound" if bound else ""
        lines.append(f"  {backend:<6} {seconds * 1e6:>10.1f} us{ratio}")
    if len(times) == len(USUAL):
        first, last = USUAL
        lines.append(f"{first} is {times[last] / times[first]:.2f} times as fast as {last}")
    return "\n".join(lines)
