"""`graphc prove`: prove the rewrite rules of the compiler's passes for every size."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING, Any

from graphc.base.errors import GraphError, close_names
from graphc.cli.arguments import Command, Parser, print_json

if TYPE_CHECKING:
    from graphc.check.prove import Proof

COMMAND = Command(
    "prove",
    order=105,
    help="prove the passes' rewrite rules for every size",
    description="Prove, with the solver z3, that what each pass makes of a pattern equals the "
    "pattern for every size over the reals; or show sizes and numbers with which it does not.\n\n"
    "The exit status is 0 when all rules are proved, 1 when one is not, and 2 for a mistake.",
    example="graphc prove neg_neg affine_batchnorm",
    mistake=2,
)


def declare(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument("rules", metavar="RULE", nargs="*", help="a rule's name (default: all)")
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Print a line for each rule, when it is judged, and the counts."""
    from graphc.check.prove import RULES, prove  # with z3, which is optional

    known = {rule.name: rule for rule in RULES}
    for name in args.rules:
        if name not in known:
            close = close_names(name, known)
            listed = f"the rules are {', '.join(known)}"
            hint = f"did you mean {' or '.join(close)}?" if close else listed
            raise GraphError(f"no rule is named {name!r}", hint=hint)
    proofs = []
    for name in dict.fromkeys(args.rules or known):
        proofs.append(prove(known[name]))
        if not args.json:
            print(proofs[-1], flush=True)
    counts = Counter(proof.verdict for proof in proofs)
    if args.json:
        print_json({"counts": counts, "rules": {p.rule.name: _data(p) for p in proofs}})
    else:
        print(", ".join(f"{number} {verdict}" for verdict, number in counts.items()))
    return 0 if counts.keys() <= {"proved"} else 1


def _data(proof: Proof) -> dict[str, Any]:
    rule, found = proof.rule, proof.counterexample
    data = {"verdict": proof.verdict, "by": rule.place, "left": rule.left, "right": rule.right}
    return {**data, "given": rule.given, "cases": proof.cases, "reason": str(found or proof.reason)}
