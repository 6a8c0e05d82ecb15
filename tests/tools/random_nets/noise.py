"""graphc's own run with noise in what it is fed, for where PyTorch is not installed."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc as gc

from .case import Case
from .runs import Result, act, executor


def noisy_run(case: Case, plan: gc.Plan, size: float, seed: int) -> list[Result]:
    """Return what each action gives when parameters and feeds are moved by rounding's size."""
    rng = np.random.default_rng([case.seed, seed])

    def moved(a: Any) -> Any:
        a = np.asarray(a)
        if a.dtype.kind != "f":
            return a
        return (a * (1 + size * rng.uniform(-1, 1, a.shape))).astype(a.dtype)

    ex = executor(case, plan)
    found = []
    for turn, (action, rows) in enumerate(case.actions):
        ex.state.assign({n: moved(ex.parameters[n]) for n in ex.parameters})
        found.append(act(ex, action, {n: moved(a) for n, a in case.feeds(rows, turn).items()}))
    return found
