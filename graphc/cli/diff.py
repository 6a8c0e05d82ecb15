"""`graphc diff`: the differences between two models, or between before and after a pass."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphc.base.errors import GraphError
from graphc.cli.arguments import Command, Parser, print_json
from graphc.cli.model import compiled, load_model, passes_of
from graphc.compiler.plan import Plan
from graphc.ir.difference import Difference, difference
from graphc.ir.graph import Graph
from graphc.ir.text.graph import node_text
from graphc.view.cost import changed_totals, totals
from graphc.view.render.difference import render_difference
from graphc.view.render.renderer import format_of
from passes.pipeline import PassList


@dataclass(frozen=True)
class Shown:
    """A difference with its heading, and lines about the work and memory that it saves."""

    name: str
    made: Difference
    saved: tuple[str, ...]
    declared: Graph

    def __str__(self) -> str:
        lines = [f"{self.name}: {str(self.made).rstrip()}", *(f"  {line}" for line in self.saved)]
        return "\n".join(lines)


COMMAND = Command(
    "diff",
    order=70,
    help="compare two models",
    description="Show what differs between two models, or what one pass changes in a model.",
    example="graphc diff net.py:net other.py:net --out difference.svg\n"
    "graphc diff net.py:net --pass fuse_affine_relu",
)


def declare(parser: Parser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("models", metavar="MODEL", nargs="+", help="two models; with --pass one")
    add("--pass", dest="step", metavar="NAME", help="compare before and after this pass")
    add("-o", "--out", metavar="FILE", help="draw it; .svg, .png, .pdf, .dot or .html")
    parser.add_batch()
    parser.add_backend()
    parser.add_passes()
    parser.add_optimizer()
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Print the difference; draw it if that is asked for."""
    if len(args.models) != (2 if args.step is None else 1):
        raise GraphError(
            f"diff was given {len(args.models)} model{'s' * (len(args.models) != 1)}",
            hint="graphc diff MODEL MODEL compares two models, graphc diff MODEL --pass NAME one "
            "before and after a pass",
        )
    if args.out is not None:
        format_of(Path(args.out))
    shown = list(_of_pass(args) if args.step is not None else _of_models(args))
    if not args.json:
        print(*shown, sep="\n\n")
    path = None
    if args.out is not None:
        drawn = next((one for one in shown if one.made), shown[0])
        path = render_difference(
            drawn.made, args.out, name=drawn.name, words=drawn.saved, declared=drawn.declared
        )
    if args.json:
        print_json({"differences": [_data(one) for one in shown], "file": path})
    elif path is not None:
        print(f"wrote {path}")
    return 0


def _data(one: Shown) -> dict[str, Any]:
    """Return a difference as data for programs: the nodes before and after, in the text form."""
    changes = [
        {
            "kind": pair.kind,
            "before": pair.before and node_text(pair.before),
            "after": pair.after and node_text(pair.after),
        }
        for pair in one.made.changes
    ]
    return {"name": one.name, "changes": changes, "roots": one.made.roots, "totals": one.saved}


def _of_models(args: argparse.Namespace) -> Iterator[Shown]:
    """Yield the difference of the declared graphs, with that of their programs' totals."""
    passes = passes_of(args)
    old, new = (_compiled(args, model, passes) for model in args.models)
    both = next(n for n in ("step", "grad", "infer") if n in old.programs and n in new.programs)
    saved = changed_totals(
        *(totals(plan.declared, plan.batch, plan.programs[both]) for plan in (old, new))
    )
    made = difference(old.declared, new.declared)
    name = " -> ".join(dict.fromkeys((old.declared.name, new.declared.name)))
    yield Shown(name, made, tuple(saved), new.declared)


def _compiled(args: argparse.Namespace, model: str, passes: PassList) -> Plan:
    return compiled(args, load_model(model).graph, passes=passes)


def _of_pass(args: argparse.Namespace) -> Iterator[Shown]:
    """Yield the difference that each run of the pass made in the program that trains, or infers."""
    passes = passes_of(args)
    passes.check_known(args.step)
    plan = _compiled(args, args.models[0], passes)
    program = next(name for name in ("step", "grad", "infer") if plan.graphs.get(name))
    runs = list(_runs(plan, program, args.step))
    if not runs:
        raise GraphError(
            f"pass {args.step!r} does not run in program {program!r} of {plan.declared.name!r}",
            hint="update needs --optimizer",
        )
    for number, made in enumerate(runs, 1):
        name = args.step if len(runs) == 1 else f"{args.step}, run {number} of {len(runs)}"
        before, after = (totals(graph, plan.batch) for graph in (made.before, made.after))
        saved = list(changed_totals(before, after)) if made else []
        if len(runs) == 1 and made:
            saved.extend(_saved_of_program(args, passes, plan, program))
        yield Shown(name, made, tuple(saved), plan.declared)


def _runs(plan: Plan, program: str, name: str) -> Iterator[Difference]:
    before = plan.declared
    for record in plan.graphs[program]:
        if record.name == name:
            yield difference(before, record.graph)
        before = record.graph


def _saved_of_program(
    args: argparse.Namespace, passes: PassList, plan: Plan, program: str
) -> Sequence[str]:
    """Return the lines of instructions and arena saved, against a plan without the pass."""
    if args.step in passes.required:
        return ()
    other = _compiled(args, args.models[0], passes.without(args.step))
    old, new = (
        replace(totals(made.declared, made.batch, made.programs[program], only=()), flops=None)
        for made in (other, plan)
    )
    saved = tuple(changed_totals(old, new))
    return saved or ("as many instructions, and as large an arena, as without it",)
