"""Plans in which values are computed again that no search would choose."""

from __future__ import annotations

import random
from dataclasses import replace

from graphc.compiler.plan import Plan
from graphc.compiler.remat.fit import Fitting
from graphc.compiler.remat.search import Choice
from graphc.kernels.traits import Forms

TRAINING = ("grad", "step", "accumulate")
SHARES = (0.2, 0.6, 1.0)
"""Of all values that the backward part reads, and may compute again."""


def computing_again(plan: Plan, seed: int) -> Plan:
    """The plan with some values of each training program computed again, drawn at random."""
    r = random.Random(seed)
    programs, graphs = dict(plan.programs), dict(plan.graphs)
    for name in TRAINING:
        if name in programs:
            fitting = Fitting(plan, name, Forms())
            choice = _drawn(r, Choice(fitting.values))
            if choice.recomputed:
                made = fitting.made(choice)
                programs[name], graphs[name] = made.program, made.records
    return replace(plan, programs=programs, graphs=graphs)


def _drawn(r: random.Random, choice: Choice) -> Choice:
    share = r.choice(SHARES)
    for value in choice.values.all:
        if value.may_recompute and value.saved and r.random() < share:
            choice.recomputed[value] = choice.first[value]
    return choice
