"""Random nets and passes, checked as those of a user are: by `validate_plan` and `check_pass`."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import graphc as gc
from graphc.check.random_net import random_net
from graphc.check.validation.executors import Others
from graphc.check.validation.judge import DEFINING
from graphc.check.validation.plans import validate_plan
from graphc.check.validation.validate import OPTIMIZERS, validate_model
from graphc.cli.installation.trial import Trial, Wrong

NETS = 6
"""The fewest nets."""


def other_ways(trial: Trial) -> Others:
    """Return the ways to run a net as an ONNX model; report if there are none."""
    try:
        from graphc.onnx.verified import OTHER_WAYS
    except gc.GraphError as error:
        trial.left.append(f"left out: {error.sentence}")
        return {}
    return OTHER_WAYS


def nets(trial: Trial) -> str:
    """Check what runs of random nets, each on the next backend, with all that becomes of a plan."""
    others, here = other_ways(trial), cycle(trial.backends())
    for number in trial.numbers(NETS):
        name, optimizer = next(here), OPTIMIZERS[number % len(OPTIMIZERS)]
        with trial.case(f"random_net({trial.seed + number}) on {name}, by {optimizer!r}"):
            net = random_net(trial.seed + number, steps=10)
            plan = gc.compile(net, batch=9, optimizer=optimizer, backend=name, threads=2)
            if not plan.verify().ok:
                raise Wrong(str(plan.verify().counterexample))
            validate_plan(plan, thorough=True, others=others)
    return (
        f"{number + 1} random nets run, as int8, frozen, from files, in populations and by gc.fit"
    )


def passes(trial: Trial) -> str:
    """Check each pass on random nets that aim at it."""
    steps: list[Any] = [step for step in gc.passes.DEFAULT.entries if not isinstance(step, str)]
    for step in steps:
        if not isinstance(step, DEFINING):
            report = gc.check_pass(step, nets=4, seed=trial.seed, folder=None)
            if report.fault:
                raise Wrong(str(report))
    for number in trial.numbers(2):
        with trial.case(f"all passes on random_net({trial.seed + number})"):
            validate_model(random_net(trial.seed + number).graph(), 5, folder=trial.folder)
    return f"{len(steps)} passes on random nets that aim at them"
