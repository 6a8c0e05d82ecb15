"""Nets that differ in one constant or attribute, in one process and one cache of machine code."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

import graphc as gc
from graphc.backends.backend import USUAL
from graphc.cli.installation.bundle import Bundle
from graphc.cli.installation.calls import calls, parsed, sides_of
from graphc.cli.installation.formulas import FORMULAS
from graphc.cli.installation.ops import BATCH, compare, compare_slopes, run_of
from graphc.cli.installation.trial import Trial

FACTOR = 0.75


def variants() -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield each call with a fraction on both sides, and its formula with another fraction."""
    for left, right in sides_of(FORMULAS):
        for number in re.findall(r"(?<![\w.])0\.\d+", left):
            if number in right:
                other = f"{float(number) * FACTOR:.4g}"
                yield left, (left.replace(number, other), right.replace(number, other))


def families(trial: Trial) -> str:
    """Check calls and then others that differ in one number."""
    here = [name for name in trial.backends() if name in USUAL]
    pairs, known = list(variants()), calls()
    for backend in here:
        for left, changed in pairs:
            other = parsed([changed])
            for name, call in ({left: known[left]} | other).items():
                with trial.case(f"{name} on {backend}, in a family with {left}"):
                    bundle = Bundle({name: call})
                    ex = gc.Executor(gc.compile(bundle.net, batch=BATCH, backend=backend))
                    arrays = bundle.drawn(np.random.default_rng(trial.seed), BATCH)
                    compare(bundle, arrays, run_of(ex, arrays, train=True), train=True)
                    compare_slopes(bundle, arrays, ex.backward())
    return f"{len(pairs)} pairs of calls that differ in one number, on {' and '.join(here)}"
