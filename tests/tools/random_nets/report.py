"""What a campaign tells: the source of a wrong case, and how often each function was drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from .calls import source
from .case import Case
from .check import Outcome
from .draw import NAMES

HEADER = """from graphc import *
from numpy import array, bool_, float32, float64, int32, int64

from tests.tools.random_nets.calls import Call, Ref, Rows
from tests.tools.random_nets.case import Case
from tests.tools.random_nets.check import check
from tests.tools.random_nets.drawer import Feed
"""


def program(case: Case, outcome: Outcome) -> str:
    """Return a program that declares the net, and asks again what was wrong."""
    with np.printoptions(threshold=10**9, floatmode="unique"):
        written = repr(case)
    told = outcome.wrong.replace('"""', "'''").replace("\\", "/")
    return (
        f'"""Seed {case.seed}, {outcome.checks[-1]}: {told}"""\n\n'
        f"{source(case.calls, case.dtype)}\n{HEADER}\n"
        f"case = {written}\n\n"
        'if __name__ == "__main__":\n'
        f"    print(check(case, {outcome.checks[-1]!r}).wrong)\n"
    )


def write(case: Case, outcome: Outcome, folder: Path) -> Path:
    """Write the program of a wrong case into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"net_{case.seed}.py"
    path.write_text(program(case, outcome))
    return path


def functions(case: Case) -> set[str]:
    """Return the functions and operators that a case calls, and its optimizer."""
    names = {call.function for call in case.calls}
    return names | (
        {f"gc.{type(case.optimizer).__name__}"} if case.optimizer is not None else set()
    )


def summary(drawn: Counter[str], checks: Counter[str], nets: int) -> str:
    """Return coverage as text: functions from the rarest on, and checks."""
    rare = sorted(drawn.items(), key=lambda item: item[1])
    lines = [f"{len(drawn)} functions, each in so many of {nets} nets:"]
    lines.append(", ".join(f"{name} {many}" for name, many in rare))
    missing = {f"gc.{n}" for n in NAMES} - drawn.keys() - {f"gc.{n}" for n in KINDS}
    if missing:
        lines.append(f"never drawn: {', '.join(sorted(missing))}")
    lines.append(", ".join(f"{name} {many}" for name, many in checks.most_common()))
    return "\n".join(lines)


KINDS = ("getitem", "matmul_left", "affine_again", "grad_again", "softmax_loss_again")
