"""Interrupt calls at their bytecodes, and count what is left.

python -m tests.runtime.injection.campaign [--every 10] [--only step] [--where numpy native]
"""

from __future__ import annotations

import argparse
import faulthandler
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.runtime.injection.files import FitJudge, SaveJudge
from tests.runtime.injection.frozen import FrozenJudge
from tests.runtime.injection.judging import PATIENCE, CallJudge
from tests.runtime.injection.raising import first_and_last, inject, places
from tests.runtime.injection.subjects import COMPILED, SUBJECTS

ALL = 3000
"""The bytecodes of a call up to which each is taken.  Of more, each place in the code is taken
the first and the last time that it is reached."""


class Judge(Protocol):
    """Makes a call ready, and judges what it left."""

    name: str

    def prepared(self) -> Callable[[], Any]:
        """The call, on objects in the state in which all calls begin."""

    def judge(self) -> str:
        """all, none, broken, or a fault: wrong, hung or left (a file)."""


@dataclass
class Tally:
    """What interrupts left: how often which, and where it was wrong."""

    name: str
    where: str
    bytecodes: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        n = self.counts
        return (
            f"{self.name:32} {self.where:8} {self.bytecodes:7} {sum(n.values()):7} {n['all']:7} "
            f"{n['none']:7} {n['broken']:7} {n['wrong']:6} {n['hung']:5}"
        )


HEAD = (
    f"{'call':32} {'on':8} {'codes':>7} {'raised':>7} {'all':>7} {'none':>7} {'broken':>7} "
    f"{'wrong':>6} {'hung':>5}"
)


def campaign(judge: Judge, where: str = "", every: int = 1, offset: int = 0) -> Tally:
    """Interrupt a call at all its bytecodes, or at one in so many."""
    tally = Tally(judge.name, where)
    found = places(judge.prepared())
    tally.bytecodes = len(found)
    chosen = found if len(found) <= ALL else list(first_and_last(found))
    for place in chosen[offset % every :: every]:
        faulthandler.dump_traceback_later(6 * PATIENCE, exit=True)
        how = inject(judge.prepared(), place)
        if how != "missed":
            verdict = judge.judge()
            tally.counts[verdict] += 1
            if verdict not in ("all", "none", "broken"):
                tally.wrong.append(f"{verdict} ({how}): {place}")
        faulthandler.cancel_dump_traceback_later()
    return tally


def judges(where: str, folder: Path, only: str = "") -> Iterator[Judge]:
    """Those of all calls on one backend whose name contains a text."""
    for subject in SUBJECTS:
        if only in subject.name:
            yield CallJudge(subject, where)
    if only == COMPILED.name:
        yield CallJudge(COMPILED, where)
    if only in FrozenJudge.name:
        yield FrozenJudge(where)
    if only in SaveJudge.name:
        yield SaveJudge(where, folder)
    if only in FitJudge.name:
        yield FitJudge(where, folder)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--where", nargs="+", default=["numpy", "native", "threads"])
    chosen = parser.parse_args()
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's job in the background has none
    print(HEAD)  # noqa: T201
    total: Counter[str] = Counter()
    for where in chosen.where:
        with tempfile.TemporaryDirectory() as folder:
            for judge in judges(where, Path(folder), chosen.only):
                tally = campaign(judge, where, chosen.every)
                total += tally.counts
                print(tally, *tally.wrong[:5], sep="\n    ", flush=True)  # noqa: T201
    print(dict(total))  # noqa: T201


if __name__ == "__main__":
    main()
