"""A case checked: against PyTorch, and against itself under transformations."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

import graphc as gc

from . import exports, transformations
from .case import Case
from .compare import NOISE, Reference, Wrong
from .drawer import Skip
from .noise import noisy_run
from .runs import executor, masks_of, plan_of, run, start_of
from .transformations import CHEAP, Check, verified

try:
    from . import torch_oracle
except ImportError:  # PyTorch is not installed: noise on graphc's own runs says how far is too far.
    torch_oracle = None  # type: ignore[assignment]

# How often the costly ones are asked, and how many of the others a case meets.
SHARES = {transformations.native: 0.08, transformations.threads: 0.05, transformations.validated: 0.01}
EXPORTS = {exports.checked: 0.3, exports.run_elsewhere: 0.12}
MANY = 2


class Outcome(NamedTuple):
    """What came of a case: nothing wrong, or what is; which checks were made."""

    wrong: str
    checks: tuple[str, ...]
    blurred: bool


def check(case: Case, only: str | None = None) -> Outcome:
    """Run a case and all that is drawn to be asked of it."""
    made: list[str] = []
    blurred = False
    try:
        c = checked(case)
        made.append("torch" if torch_oracle is not None else "noise")
        c.near(made[0], c.base)
        for ask in asked(c.rng, only):
            try:
                ask(c)
                made.append(ask.__name__)
            except Skip:
                continue
        blurred = c.reference.blurred > 0.5 * c.reference.seen
    except Wrong as wrong:
        return Outcome(str(wrong), tuple(made), blurred)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return Outcome(f"{type(error).__name__}: {str(error)[:400]} [{where.name}]", tuple(made), blurred)
    return Outcome("", tuple(made), blurred)


def checked(case: Case) -> Check:
    """Run a case on NumPy, and make its reference."""
    plan = verified(plan_of(case))
    base = run(case, executor(case, plan))
    return Check(case, plan, base, reference(case, plan, base), np.random.default_rng([case.seed, 7]))


def reference(case: Case, plan: gc.Plan, base: Any) -> Reference:
    """Return what a case should give, by PyTorch where it is installed."""
    seeds: Iterator[int] = iter(range(1, 1000))
    start = start_of(case, executor(case, plan))
    if torch_oracle is None:
        def more() -> Any:
            return noisy_run(case, plan, next(seeds))

        return Reference(base, [more(), more()], more, case.dtype)
    masks, trained = masks_of(case), tuple(plan.wrt)

    def noisy() -> Any:
        return torch_oracle.runs(case, start, trained, masks, NOISE[case.dtype], next(seeds))

    exact = torch_oracle.runs(case, start, trained, masks, 0.0, 0)
    return Reference(exact, [noisy(), noisy()], noisy, case.dtype)


def asked(rng: np.random.Generator, only: str | None) -> list[Any]:
    """Draw which transformations a case meets."""
    known = [*SHARES, *EXPORTS, *CHEAP]
    if only is not None:
        return [ask for ask in known if ask.__name__ == only]
    costly = [ask for ask, share in {**SHARES, **EXPORTS}.items() if rng.random() < share]
    return [CHEAP[i] for i in rng.choice(len(CHEAP), MANY, replace=False)] + costly
