"""`graphc verify`: prove that a plan uses its memory soundly, and run it to compare every value."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphc.base.errors import GraphError
from graphc.check.certificate.export import certify, certify_program
from graphc.check.certificate.text import parse_certificate
from graphc.check.code_file import verify_code
from graphc.check.validation import ValidationError
from graphc.check.validation.plans import cotangent_programs, validate_plan
from graphc.check.verify import ProgramProof, Report, verify, verify_program
from graphc.cli.arguments import Command, Parser, picked, show
from graphc.cli.model import compiled, load_model
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
    "and an executor must give the same bits over steps, after freeze, and from a model file.\n\n"
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
        help="file.py:function, a saved model, a certificate that `graphc plan` wrote (.json), or "
        "a C file that `graphc export` wrote (.c)",
    )
    parser.add_batch()
    parser.add_backend()
    parser.add_passes()
    parser.add_optimizer()
    add("--run", dest="runs", action="store_true", help="run what was compiled, too")
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Print the proof or the counterexamples, and what was run or is wrong."""
    plan, report = _report(args)
    data, text, wrong = _data(report), str(report), False
    if args.runs and report.ok:
        if plan is None:
            raise GraphError("a certificate holds no program to run", hint="give the model itself")
        try:
            ran = validate_plan(plan, thorough=True)
            data["ran"], text = ran, f"{text}\n{ran}"
        except ValidationError as error:
            wrong, text = True, f"{text}\nwrong: {error}"
            data |= {"ok": False, "wrong": picked(error, "layer", "kernel"), "message": str(error)}
    show(args, data, text)
    return 0 if report.ok and not wrong else 1


def _report(args: argparse.Namespace) -> tuple[Plan | None, Report]:
    """Return the plan, if the source is not a certificate, and what is proved of it."""
    if args.source.endswith((".json", ".c")) and args.passes:
        raise GraphError(
            "a certificate is of a plan whose passes have run",
            hint="give the model instead: graphc verify net.py:net --passes FILE:NAME",
        )
    if args.source.endswith(".json"):
        return None, verify(parse_certificate(_read(args.source)))
    if args.source.endswith(".c"):
        return None, verify_code(Path(args.source))
    plan = compiled(args, load_model(args.source).graph)
    report = verify(certify(plan))
    return plan, replace(report, programs=(*report.programs, *_cotangents(plan)))


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
