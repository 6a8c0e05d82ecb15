"""Results and gradients of functions on each backend, by formulas in plain NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import graphc as gc
from graphc.backends.backend import BACKENDS, PORTABLE, USUAL
from graphc.cli.installation.bundle import Bundle
from graphc.cli.installation.calls import calls, slope_of
from graphc.cli.installation.plain import Array
from graphc.cli.installation.trial import ROUGH, Trial, Wrong, all_same, near, some

BATCH = 7
BUNDLE = 24
"""The calls of a net."""
SLOPES = 3
"""The nets of which one has gradients on backends whose compiler takes long, by the seed."""
FAR = 12.0
"""The factor of numbers for which functions saturate."""
ROWS = ((1, 1.0), (BATCH - 2, FAR), (BATCH, 1.0), (BATCH // 2, 1.0))
"""The rows of runs, and the factor of their numbers: what more rows left behind is not read."""


def ops(trial: Trial) -> str:
    """Check all functions in float64, with their gradients."""
    check_calls(trial, PORTABLE, "float64")
    return f"{len(calls())} calls: results by formulas, gradients by central differences of these"


def backends(trial: Trial) -> str:
    """Check all functions on each backend that is here, in float32."""
    here = [name for name in trial.backends() if name != PORTABLE]
    for name in here:
        check_calls(trial, name, "float32", every=1 if name in USUAL else SLOPES)
    return f"{len(calls())} calls on {' and '.join(here)}, with 1 and 2 threads" if here else ""


def check_calls(trial: Trial, backend: str, dtype: str, every: int = 1) -> None:
    """Check nets of some calls each, and the gradients of one of so many of them."""
    for number, chosen in enumerate(some(calls(), BUNDLE)):
        bundle = Bundle({name: calls()[name] for name in chosen}, dtype)
        with trial.case(f"{backend}, {dtype}, {', '.join(chosen)}"):
            check_bundle(trial, bundle, backend, (number + trial.seed) % every == 0)


def check_bundle(trial: Trial, bundle: Bundle, backend: str, slopes: bool) -> None:
    """Check the calls of a net, and their gradients if it has slopes."""
    options: dict[str, Any] = {"backend": backend} | ({} if slopes else {"losses": []})
    one = proved(bundle, **options)
    for rows, far in ROWS:
        arrays = bundle.drawn(trial.rng, rows, far)
        compare(bundle, arrays, run_of(one, arrays), train=False, far=far)
    if slopes:
        arrays = bundle.drawn(trial.rng, BATCH)
        found = run_of(one, arrays, train=True)
        compare(bundle, arrays, found, train=True)
        gradients = one.backward()
        compare_slopes(bundle, arrays, gradients)
    if slopes and backend == BACKENDS[0]:  # the others take one thread
        two = proved(bundle, threads=2, **options)
        all_same("with two threads", found, run_of(two, arrays, train=True))
        all_same("gradients with two threads", gradients, two.backward())


def proved(bundle: Bundle, threads: int = 1, **options: Any) -> gc.Executor:
    """Return an executor of a plan that is proved."""
    plan = gc.compile(bundle.net, batch=BATCH, threads=threads, **options)
    report = plan.verify()
    if not report.ok:
        raise Wrong(str(report.counterexample))
    return gc.Executor(plan)


def run_of(ex: gc.Executor, arrays: Mapping[str, Array], train: bool = False) -> dict[str, Array]:
    """Return the outputs of an executor that takes its parameters, too."""
    ex.state.assign({name: arrays[name] for name in ex.plan.parameter_names})
    return dict(ex.forward({name: arrays[name] for name in ex.plan.input_names}, train=train))


def compare(
    bundle: Bundle,
    arrays: Mapping[str, Array],
    found: Mapping[str, Array],
    train: bool,
    far: float = 1.0,
) -> None:
    """Compare outputs with formulas; slopes of far numbers lose digits, as 1 - tanh(x)**2 does."""
    for part, expected in bundle.outputs(arrays, train):
        rough = ROUGH[bundle.dtype] * (far if part.call.startswith(slope_of.__name__) else 1.0)
        near(f"{part.call}: its result", expected, found[part.output], rough)


def compare_slopes(
    bundle: Bundle, arrays: Mapping[str, Array], gradients: Mapping[str, Array]
) -> None:
    """Compare gradients with central differences."""
    for part, name, expected in bundle.slopes(arrays):
        found = gradients.get(name, 0 * expected)
        near(f"{part.call}: the gradient by {name!r}", expected, found, 4 * ROUGH[bundle.dtype])
