"""Run random nets for some time: `python -m tests.tools.fuzz --minutes 5`."""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from pathlib import Path

from tests.tools.fuzz.campaign import Findings
from tests.tools.fuzz.draw import Wishes, steps_of
from tests.tools.fuzz.jobs import Report, campaign


def main(arguments: list[str] | None = None) -> int:
    """The number of failures, at most 1, as an exit code."""
    chosen = _parser().parse_args(arguments)
    wishes = Wishes(
        native=chosen.native,
        interpreted=chosen.interpreted,
        torch=chosen.torch,
        tight=chosen.tight,
        again=chosen.again,
        cut=chosen.cut,
        proved=True,
        most=chosen.steps,
        without=steps_of(chosen.only) if chosen.only else (),
        once=chosen.once,
        precision=chosen.precision,
    )
    made = _run(chosen, wishes)
    findings = made.findings
    print(report(findings))  # noqa: T201
    if chosen.json:
        told = {"cases": findings.cases, "seconds": findings.seconds, **findings.coverage.as_json()}
        chosen.json.write_text(json.dumps(told, indent=1) + "\n")
    for path, summary in made.failed:
        print(f"{path}: {summary}")  # noqa: T201
    return int(bool(made.failed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.tools.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, help="how long (default: until --cases)")
    parser.add_argument("--cases", type=int, default=None, help="how many at most")
    parser.add_argument("--seed", type=int, default=0, help="of the first case; others count on")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="grow nets by these steps alone")
    parser.add_argument("--once", metavar="STEP", default="", help="a step that each net has: loop")
    parser.add_argument("--native", type=float, default=0.05, help="the share of native cases")
    parser.add_argument("--interpreted", type=float, default=0.1, help="and of those interpreted")
    parser.add_argument("--torch", type=float, default=_torch_share(), help="and with PyTorch")
    parser.add_argument("--tight", type=float, default=0.04, help="and with little memory")
    parser.add_argument("--again", type=float, default=0.03, help="and with values computed again")
    parser.add_argument("--cut", type=float, default=0.05, help="and cut into shards")
    parser.add_argument("--precision", type=float, default=0.05, help="and with bfloat16")
    parser.add_argument("--steps", type=int, default=7, help="of a net, at most")
    parser.add_argument("--json", type=Path, help="where to write the coverage")
    parser.add_argument("--found", type=Path, default=Path(__file__).parent / "found")
    return parser


def _torch_share() -> float:
    """Half of the cases where PyTorch is installed."""
    return 0.5 if importlib.util.find_spec("torch") else 0.0


def _run(chosen: argparse.Namespace, wishes: Wishes) -> Report:
    if chosen.minutes is None and chosen.cases is None:
        chosen.minutes = 1.0
    until = None if chosen.minutes is None else time.monotonic() + 60 * chosen.minutes
    return campaign(chosen.jobs, chosen.seed, chosen.cases, wishes, until, chosen.found)


def report(findings: Findings) -> str:
    """A few lines for people."""
    rate = findings.cases / max(findings.seconds, 1e-9)
    lines = [
        f"{findings.cases:,} cases in {findings.seconds:.0f} s, {rate:.1f} a second; "
        f"{findings.redrawn:,} draws near a kink",
        f"{findings.results:,} results; the largest error is {findings.closest:.2f} of its bound; "
        f"the bound is above 1 % for {findings.loose:,}",
        findings.coverage.text(),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
