"""A family run: each net in one process and one cache, and compared with NumPy and with itself."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import numpy as np

import graphc as gc
from graphc.backends.c.backend import compiler
from graphc.backends.native import libraries
from graphc.runtime.reference import evaluate, expanded

from . import campaign
from .alarms import quickly_compiled
from .calls import made, source
from .case import Case
from .compare import NOISE, Reference, Wrong, equal
from .family import family
from .noise import noisy_run
from .report import functions
from .runs import Result, executor, plan_of, run
from .transformations import optional_passes

NEAR = {"float32": (2e-3, 2e-5), "float64": (1e-7, 1e-9)}
"""The error of a run that is not looked at closely, relative to a number, and to the largest."""
ROUNDED = 3e-2, 1e-2
"""The same where products are of rounded factors."""
C_SHARE, DISK_SHARE = 0.02, 0.3
"""The families that run as C, and those that are found on disk."""
BARE_SHARE, RULES_SHARE = 0.2, 0.5
"""The nets whose results are those without passes, and those by the rules of ops."""
FEW_SHARE = 0.3
"""The families whose code is that of few passes."""


def work(seeds: range, folder: Path) -> campaign.Part:
    """Draw and check the families of some seeds, and write down those that are wrong."""
    before = campaign.seconds()
    part = campaign.Part([], Counter(), Counter(), 0, 0.0)
    for seed in seeds:
        members = family(seed)
        try:
            with quickly_compiled():  # which changes no bit
                wrong = check(members, seed, part.checks)
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        part.drawn.update(set[str]().union(*map(functions, members)))
        if wrong:
            part.wrong.append(f"seed {seed}, families: {wrong}\n  {write(members, wrong, folder)}")
    return part._replace(seconds=campaign.seconds() - before)


def write(members: Sequence[Case], wrong: str, folder: Path) -> Path:
    """Write the nets of a family, and what is wrong, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"family_{members[0].seed}.txt"
    nets = [f"{source(one.calls, one.dtype)}{one.optimizer}, {one.actions}" for one in members]
    path.write_text("\n\n".join([wrong, *nets]))
    return path


def check(members: Sequence[Case], seed: int, checks: Counter[str]) -> str:
    """Run a family, count what was done, and return what is wrong."""
    rng = np.random.default_rng([seed, 38])
    backend = "c" if rng.random() < C_SHARE and compiler() is not None else "native"
    few = bool(rng.random() < FEW_SHARE)
    checks[f"families in {backend}"] += 1
    found: list[tuple[Case, gc.Plan, list[Result]]] = []
    for case in members:
        try:
            right = expected(case, rng)
        except gc.GraphError:
            checks["nets refused"] += 1
            continue
        checks["nets"] += 1
        plan = code(case, backend, few)
        results = run(case, executor(case, plan))
        found.append((case, plan, results))
        if not near(results, right, *(ROUNDED if case.products else NEAR[digits(case)])):
            checks["nets looked at closely"] += 1
            if wrong := _judged(case, right, results, backend, few):
                return f"{backend}: {wrong}"
    if found and backend == "native" and rng.random() < DISK_SHARE:  # as in a later process
        checks["nets from the disk"] += 1
        forget()
        case, plan, results = found[int(rng.integers(len(found)))]
        if not bits(run(case, executor(case, plan)), results):
            return "the code on disk gives other bits"
    return ""


def code(case: Case, backend: str, few: bool) -> gc.Plan:
    """Compile a net, perhaps with few passes; to be quantized, factors need those for constants."""
    passes = gc.passes.without(*optional_passes() * (few and case.products != "int8"))
    return plan_of(case, backend=backend, threads=1, passes=passes)


def expected(case: Case, rng: np.random.Generator) -> list[Result]:
    """Return what a net computes on NumPy, and by the rules of its ops where those are asked."""
    passes = gc.passes.without(*optional_passes() * (rng.random() < BARE_SHARE))
    ex = executor(case, plan_of(case, passes=passes))
    ((action, rows),), declared = case.actions, ex.plan.declared
    state = {name: np.array(array) for name, array in ex.state.items()}
    (result,) = run(case, ex)
    if action in ("infer", "train") and not case.products and rng.random() < RULES_SHARE:
        with suppress(gc.GraphError):  # a derivative inside the net has no rule
            expanded.cache_clear()  # of what other nets have
            values = evaluate(declared, case.feeds(rows, 0), state, rows, action == "train")
            result |= {f"output {k}": values[v] for k, v in declared.outputs.items()}
    return [result]


def forget() -> None:
    """Forget the code of this process."""
    libraries._loaded.clear()
    libraries._recent.clear()


def digits(case: Case) -> str:
    """Return the coarsest dtype that a net has floats of."""
    dtypes = {value.dtype for value in made(case.calls, case.dtype)[1].values()}
    return "float32" if "float32" in dtypes else case.dtype


def near(found: Sequence[Result], right: Sequence[Result], own: float, most: float) -> bool:
    """Return whether all results are as near to each other as rounding lets them be, mostly."""
    for a, b in zip(found, right, strict=True):
        for name in a.keys() & b.keys():
            x, y = (np.asarray(one[name], np.float64) for one in (a, b))
            size = float(np.abs(y[np.isfinite(y)]).max(initial=0))
            if x.shape != y.shape or not np.allclose(x, y, own, most * size, equal_nan=True):
                return False
    return True


def _judged(case: Case, right: list[Result], found: list[Result], backend: str, few: bool) -> str:
    """Return what is wrong with results that are far from the right ones, if anything is."""
    with ProcessPoolExecutor(1, get_context("spawn"), campaign.begin) as alone:
        if not bits(found, alone.submit(_alone, case, backend, few).result()):
            return "it has other bits alone"
    if case.products == "int8":  # a factor near the middle of two numbers may be either
        return ""
    plan, dtype, seeds = plan_of(case), digits(case), iter(range(1, 1000))

    def noisy() -> list[Result]:
        return noisy_run(case, plan, NOISE[dtype], next(seeds))

    try:
        Reference(right, [noisy(), noisy()], noisy, dtype).compare(backend, found)
    except Wrong as wrong:
        return str(wrong)
    return ""


def _alone(case: Case, backend: str, few: bool) -> list[Result]:
    """Return what a net computes that no other was compiled before."""
    with tempfile.TemporaryDirectory() as cache, quickly_compiled():
        os.environ["GRAPHC_CACHE"] = cache
        return run(case, executor(case, code(case, backend, few)))


def bits(a: Sequence[Result], b: Sequence[Result]) -> bool:
    """Return whether two runs have the same bits."""
    return all(
        x.keys() == y.keys() and all(equal(x[name], y[name]) for name in x)
        for x, y in zip(a, b, strict=True)
    )
