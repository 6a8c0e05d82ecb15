"""A case checked: against PyTorch, and against itself under transformations."""

from __future__ import annotations

import traceback
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import graphc as gc

from . import exports, transformations
from .alarms import alarms
from .case import Case
from .compare import NOISE, Reference, Wrong
from .composed import composed, quantized
from .drawer import Skip
from .members import members
from .noise import noisy_run
from .runs import executor, masks_of, plan_of, run, start_of
from .transformations import CHEAP, Check, verified

try:
    from . import torch_oracle
except ImportError:  # PyTorch is not installed: noise on graphc's own runs says how far is too far.
    torch_oracle = None  # type: ignore[assignment]

# How often the costly ones are asked, and how many of the others a case meets.
SHARES = {
    transformations.native: 0.08,
    transformations.threads: 0.05,
    transformations.validated: 0.01,
    alarms: 0.01,
    exports.checked: 0.3,
    exports.run_elsewhere: 0.1,
    composed: 0.2,
    members: 0.2,
    quantized: 0.2,
}
MANY = 2
ORACLE = "torch" if torch_oracle is not None else "noise"


class Outcome(NamedTuple):
    """What came of a case: nothing wrong, or what is; which checks were made, the wrong one last.

    `blurred`: more than half of all numbers could not be compared, being near a kink or not finite.
    """

    wrong: str
    checks: tuple[str, ...]
    blurred: bool = False


def check(case: Case, only: str | None = None) -> Outcome:
    """Run a case and all that is drawn to be asked of it, or only one of these."""
    made = ["plan"]
    try:
        c = checked(case)
        made.append(ORACLE)
        c.near(ORACLE, c.base)
        for ask in asked(case, only):
            made.append(ask.__name__)
            c.rng = np.random.default_rng([case.seed, zlib.crc32(made[-1].encode())])
            try:
                ask(c)
            except Skip:
                made.pop()
    except Wrong as wrong:
        return Outcome(str(wrong), tuple(made))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return Outcome(f"{type(error).__name__}: {error} [{where.name}]", tuple(made))
    return Outcome("", tuple(made), c.reference.blurred > 0.5 * c.reference.seen)


def checked(case: Case) -> Check:
    """Run a case on NumPy, and make its reference."""
    plan = verified(plan_of(case))
    base = run(case, executor(case, plan))
    coarse = partial(reference, case, plan, base, "float32")
    right = reference(case, plan, base)
    return Check(case, plan, base, right, coarse, judged, np.random.default_rng(case.seed))


def judged(case: Case) -> Reference:
    """Return what another case should give."""
    plan = plan_of(case)
    return reference(case, plan, run(case, executor(case, plan)))


def reference(case: Case, plan: gc.Plan, base: Any, dtype: str | None = None) -> Reference:
    """Return what a case should give, by PyTorch where that is, to the digits of a dtype."""
    dtype = dtype or case.dtype
    seeds: Iterator[int] = iter(range(1, 1000))
    start = start_of(case, executor(case, plan))
    if torch_oracle is None:

        def more() -> Any:
            return noisy_run(case, plan, NOISE[dtype], next(seeds))

        return Reference(base, [more(), more()], more, dtype)
    masks, trained = masks_of(case), tuple(plan.wrt)

    def noisy() -> Any:
        return torch_oracle.runs(case, start, trained, masks, dtype, next(seeds))

    exact = torch_oracle.runs(case, start, trained, masks, None, 0)
    return Reference(exact, [noisy(), noisy()], noisy, dtype)


def asked(case: Case, only: str | None) -> list[Any]:
    """Draw which transformations a case meets."""
    if only is not None:
        return [ask for ask in (*SHARES, *CHEAP) if ask.__name__ == only]
    rng = np.random.default_rng([case.seed, 7])
    costly = [ask for ask, share in SHARES.items() if rng.random() < share]
    return [CHEAP[i] for i in rng.choice(len(CHEAP), MANY, replace=False)] + costly
