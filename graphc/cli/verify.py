"""`graphc verify`: prove that a plan uses its memory soundly, and run it to compare every value."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphc.base.errors import GraphError
from graphc.check.certificate.export import certify_program
from graphc.check.certificate.text import parse_certificate
from graphc.check.code_file import verify_code
from graphc.check.plan_proof import verify_plan
from graphc.check.table import by_role, table_fault
from graphc.check.validation import ValidationError
from graphc.check.validation.executors import Others
from graphc.check.validation.plans import cotangent_programs, validate_plan
from graphc.check.verify import ProgramProof, Report, verify, verify_program
from graphc.cli.arguments import Command, Parser, number, picked, print_json, show
from graphc.cli.data import feeds_of, form_of, is_table
from graphc.cli.installation import SECTIONS, check_installation
from graphc.cli.model import Model, compiled, is_onnx, load_model
from graphc.compiler.plan import Plan
from graphc.files.container import read_whole
from graphc.files.disk import reason

COMMAND = Command(
    "verify",
    order=100,
    help="prove that a plan is sound on its memory",
    description="Prove, from the certificate of a plan alone, that every read finds its value, "
    "that no write touches a live buffer, and that threads do not race; or show a "
    "counterexample.\n\n"
    "With --run, also run every program, with several numbers of rows and threads. Every value "
    "must be that of the ops' reference rules, by the kernels and by the code that computes them; "
    "and an executor must give the same bits over steps, after freeze, from a model file, as a "
    "member of a population and in gc.fit. The net in int8, and as an ONNX model if onnx is "
    "installed, must compute what is declared.\n\n"
    "Without SOURCE, what is installed is checked on this machine: functions and gradients on "
    "each backend, optimizers, gc.fit, populations, files, tables, ONNX and passes, by plain NumPy."
    "\n\n"
    "With --data, every cell that the model reads of a .csv file is compared with what a second "
    "parser finds there.\n\n"
    "The exit status is 0 when all is right, 1 when a proof fails or a value is wrong, and 2 when "
    "there is no plan.",
    example="graphc verify net.py:net --batch 32 --optimizer adam --run",
    mistake=2,
)


def declare(parser: Parser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add(
        "source",
        metavar="SOURCE",
        nargs="?",
        help="file.py:function, a saved model, a certificate that `graphc plan` wrote (.json), or "
        "a C file that `graphc export` wrote (.c); without it what is installed is checked",
    )
    parser.add_batch()
    parser.add_backend()
    parser.add_passes()
    parser.add_precision()
    parser.add_optimizer()
    parser.add_data("the .csv file whose cells are compared", required=False)
    add("--run", dest="runs", action="store_true", help="run what was compiled, too")
    sections = f"a section of the check without SOURCE: {', '.join(SECTIONS)}"
    add("--only", choices=SECTIONS, metavar="SECTION", action="append", help=sections)
    add("--seed", type=int, default=0, help="its random numbers (default: 0)")
    add("--seconds", type=number, default=60.0, help="for more random cases (default: 60)")
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Print the proof or the counterexamples, and what was run or is wrong."""
    if args.source is None:
        return _installation(args)
    model, plan, report = _report(args)
    data, text, wrong = _data(report), str(report), False
    if args.data and plan is not None:
        fault, rows = _of_table(args, model, plan)
        text = f"{text}\n{f'wrong: {fault}' if fault else f'{rows:,} rows of {args.data} agree'}"
        wrong, data = bool(fault), data | {"ok": report.ok and not fault, "table": fault}
    if args.runs and report.ok:
        if plan is None:
            raise GraphError("a certificate holds no program to run", hint="give the model itself")
        try:
            ran = validate_plan(plan, thorough=True, others=_others(args.source))
            data["ran"], text = ran, f"{text}\n{ran}"
        except ValidationError as error:
            wrong, text = True, f"{text}\nwrong: {error}"
            data |= {"ok": False, "wrong": picked(error, "layer", "kernel"), "message": str(error)}
    show(args, data, text)
    return 0 if report.ok and not wrong else 1


def _installation(args: argparse.Namespace) -> int:
    """Print a line for each section of the check of what is installed, when it is done."""
    if args.runs or args.data:
        raise GraphError("no model is given to run", hint="graphc verify net.py:net --run")
    lines = []
    for line in check_installation(args.only or (), seed=args.seed, seconds=args.seconds):
        lines.append(line)
        if not args.json:
            print(line, flush=True)
    wrong = [line for line in lines if not line.ok]
    if args.json:
        print_json({"ok": not wrong, "sections": [line._asdict() for line in lines]})
    elif wrong:
        options = "".join(f" --only {line.section}" for line in wrong)
        print(f"this shows it again: graphc verify --seed {args.seed}{options}")
    return 1 if wrong else 0


def _others(source: str) -> Others:
    """Return the ways to run a net as an ONNX model, if onnx is installed."""
    try:
        from graphc.onnx.verified import OTHER_WAYS, as_in_file
    except GraphError:
        return {}
    return {**OTHER_WAYS, **({f"{source} itself": as_in_file(source)} if is_onnx(source) else {})}


def _of_table(args: argparse.Namespace, model: Model | None, plan: Plan) -> tuple[str, int]:
    """Return the first cell of a table that is read wrongly, or "", and the number of rows."""
    if not is_table(args.data):
        raise GraphError(f"{args.data} is not a .csv file", hint="--data train.csv")
    feeds, columns = feeds_of(plan, args, None if model is None else model.columns)
    assert columns is not None, "a table has columns"
    arrays, form = by_role(feeds, columns), form_of(args)
    marks = {"separator": form.separator, "encoding": form.encoding, "fill": args.fill}
    return table_fault(Path(args.data), columns, arrays, **marks), len(arrays[0])


def _report(args: argparse.Namespace) -> tuple[Model | None, Plan | None, Report]:
    """Return model and plan, unless the source is a certificate, and what is proved of the plan."""
    if args.source.endswith((".json", ".c")) and args.passes:
        raise GraphError(
            "a certificate is of a plan whose passes have run",
            hint="give the model instead: graphc verify net.py:net --passes FILE:NAME",
        )
    if args.source.endswith(".json"):
        return None, None, verify(parse_certificate(_read(args.source)))
    if args.source.endswith(".c"):
        return None, None, verify_code(Path(args.source))
    model = load_model(args.source)
    plan = compiled(args, model.graph)
    report = verify_plan(plan)
    return model, plan, replace(report, programs=(*report.programs, *_cotangents(plan)))


def _read(path: str) -> str:
    try:
        return read_whole(path).decode()
    except OSError as error:
        raise GraphError(f"cannot read {path!r}: {reason(error)}") from None
    except UnicodeDecodeError as error:
        raise GraphError(f"cannot read {path!r}: {error}") from None


def _cotangents(plan: Plan) -> Iterator[ProgramProof]:
    """Yield proofs of the programs that differentiate an output by its cotangent, if one flows."""
    for name, program in cotangent_programs(plan):
        yield replace(verify_program(certify_program(program)), name=name)


def _data(report: Report) -> dict[str, Any]:
    """Return the report as data for programs."""
    names = ("name", "backend", "capacity", "ok", "counts", "counterexample")
    programs = [picked(proof, *names) for proof in report.programs]
    return {"net": report.net, "ok": report.ok, "programs": programs, "plan": report.plan}
