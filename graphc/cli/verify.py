"""`graphc verify`: prove that a plan uses its memory soundly."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from graphc.base.errors import GraphError
from graphc.check.certificate.export import certify, certify_program
from graphc.check.certificate.text import parse_certificate
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
    "The exit status is 0 when all is proved, 1 when a proof fails, and 2 when there is no plan.",
    example="graphc verify net.py:net --batch 32 --optimizer adam",
    mistake=2,
)


def declare(parser: Parser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add(
        "source",
        metavar="SOURCE",
        help="file.py:function, a saved model, or a certificate that `graphc plan` wrote (.json)",
    )
    parser.add_batch()
    parser.add_backend()
    parser.add_passes()
    parser.add_optimizer()
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Print the proof, or the counterexamples."""
    report = _report(args)
    show(args, _data(report), report)
    return 0 if report.ok else 1


def _report(args: argparse.Namespace) -> Report:
    if args.source.endswith(".json"):
        if args.passes:
            raise GraphError(
                "a certificate is of a plan whose passes have run",
                hint="give the model instead: graphc verify net.py:net --passes FILE:NAME",
            )
        return verify(parse_certificate(_read(args.source)))
    plan = compiled(args, load_model(args.source).graph)
    report = verify(certify(plan))
    return replace(report, programs=(*report.programs, *_cotangents(plan)))


def _read(path: str) -> str:
    try:
        return read_whole(path).decode()
    except OSError as error:
        raise GraphError(f"cannot read {path!r}: {reason(error)}") from None
    except UnicodeDecodeError as error:
        raise GraphError(f"cannot read {path!r}: {error}") from None


def _cotangents(plan: Plan) -> Iterator[ProgramProof]:
    """Yield proofs of the programs that differentiate an output by its cotangent, if one flows."""
    for name in plan.declared.outputs if plan.wrt else ():
        try:
            program = plan.cotangent_program((name,))
        except GraphError:
            continue
        if program.gradients:
            yield replace(verify_program(certify_program(program)), name=f"cotangent of {name}")


def _data(report: Report) -> dict[str, Any]:
    """Return the report as data for programs."""
    names = ("name", "backend", "capacity", "ok", "counts", "counterexample")
    programs = [picked(proof, *names) for proof in report.programs]
    return {"net": report.net, "ok": report.ok, "programs": programs, "plan": report.plan}
