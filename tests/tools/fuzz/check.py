"""Whether a case gives what it means."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from graphc.base.errors import GraphError
from graphc.compiler.plan import Plan
from graphc.ir.op import Array
from tests.tools.fuzz.bits import other_bits
from tests.tools.fuzz.bound import RUNS, Meant
from tests.tools.fuzz.case import Case
from tests.tools.fuzz.declared import declared
from tests.tools.fuzz.meaning import Meaning
from tests.tools.fuzz.run import run
from tests.tools.fuzz.slopes import wrong_slope

Kind = Literal["right", "wrong", "raised", "near a kink", "not finite", "refused"]
REDRAWS = 6
REFUSALS = (
    *("has no gradient", "no gradient flows", "depends on no parameter", "no loss depends on"),
    *("shards of a batch cannot add it up", "shards can average only floats"),
    "which synchronised shards cannot do",
)
"""What compile rightly says of some choices of losses and wrt, and of some nets that are cut."""


@dataclass
class Verdict:
    """What became of a case, or of the draw of numbers that was judged."""

    kind: Kind
    message: str
    case: Case
    plans: list[Plan] = field(default_factory=list)
    redrawn: int = 0
    meant: Meant | None = None

    @property
    def error(self) -> str:
        """The kind of error that was raised."""
        return self.summary.partition(":")[0]

    @property
    def summary(self) -> str:
        """The message in one line."""
        lines = [line for line in self.message.splitlines() if line and not line.startswith(" ")]
        return lines[-1] if lines else ""

    @property
    def failed(self) -> bool:
        """Whether graphc is at fault."""
        return self.kind in ("wrong", "raised")


def assert_right(case: Case) -> None:
    """AssertionError where graphc gives another result than the case means, or an error."""
    verdict = judge(case)
    assert not verdict.failed, verdict.message


def judge(case: Case) -> Verdict:
    """The verdict on a case; whatever is raised is graphc's failure."""
    try:
        return check(case)
    except Exception:
        return Verdict("raised", traceback.format_exc(), case)


def check(case: Case) -> Verdict:
    """Judge a case; numbers near a kink, or not finite, are drawn again a few times."""
    try:
        meaning = Meaning(case)
    except GraphError as error:
        if any(reason in str(error) for reason in REFUSALS):
            return Verdict("refused", str(error), case)
        raise
    for redrawn, drawn in enumerate(_draws(case)):
        meaning.case = drawn
        verdict = _judge(drawn, meaning)
        verdict.redrawn = redrawn
        if verdict.kind not in ("near a kink", "not finite"):
            break
    return verdict


def _draws(case: Case) -> Iterator[Case]:
    """The case with other numbers; all have the same plans."""
    plans = {"plan": case.plan} | ({"other_plan": case.other_plan} if case.other else {})
    for number in range(REDRAWS):
        drawn = case if number == 0 else replace(case, draw=case.draw + 100_000 * number)
        drawn.__dict__.update(plans)
        yield drawn


def _judge(case: Case, meaning: Meaning) -> Verdict:
    meant = Meant(meaning)
    meant.widen(RUNS[0])
    if not meant.finite:
        return Verdict("not finite", "", case)
    if meant.near_kink():
        return Verdict("near a kink", "", case)
    found, plans = run(case)
    found = [*found, *declared(meant)]
    for runs in RUNS:
        meant.widen(runs)
        wrong = meant.wrong(found)
        if wrong is None:
            break
        if meant.near_kink():
            return Verdict("near a kink", "", case, plans)
    message = str(wrong or _others_say(meant, found[: len(case.events)]) or "")
    return Verdict("wrong" if message else "right", message, case, plans, meant=meant)


def _others_say(meant: Meant, found: list[dict[str, Array]]) -> str | None:
    """What differences of the losses, PyTorch, or other code for products contradict."""
    case = meant.meaning.case
    wrong = wrong_slope(meant) if case.slopes else None
    if wrong is None and case.torch:
        from tests.tools.fuzz.torch_oracle import wrong_by_torch

        wrong = wrong_by_torch(meant)
    if wrong is None and case.precision and case.backend == "native":
        wrong = other_bits(case, found)
    return wrong
