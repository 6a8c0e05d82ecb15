"""Judges the gradients that `backward` adds, by central differences."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphc.check.central_differences import Function, disagreement
from graphc.check.validation.compare import Case, Mismatch
from graphc.check.validation.run import (
    Draw,
    Results,
    results_of,
    source_arrays,
    values_of,
    values_of_arrays,
    without_gradients,
)
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from passes.backward import Backward


def derivative_cases(
    step: Backward, old: Graph, new: Graph, draw: Draw
) -> Iterator[Case | Mismatch]:
    """Yield the results that Backward must not change, and gradients that differences refute.

    Each of `wrt` is tried by itself, in float64, against the sum of the losses, or of the outputs
    times the cotangents that are fed.  A node without gradient must not affect that sum.
    """
    values = values_of(new, draw)
    plain, before = _seen(step, old, draw)
    after = without_gradients(results_of(new, values))
    yield Case(before, after, "backward leaves it as it is")
    weights: list[tuple[str, Array | float]] = [
        (old.outputs[name], values[f"cotangent:{name}"] if step.fed else 1.0)
        for name in step.losses
    ]
    for name in step.wrt:
        target = old.gradients.get(name, name)
        if target not in old:
            continue  # it has no user, so it was removed
        x, gradient = plain[target], new.gradients.get(name)
        ours = np.zeros_like(x) if gradient is None else values[gradient]
        if ours.shape != x.shape:
            fault = f"has shape {list(ours.shape)}, {name!r} has {list(x.shape)}"
            yield Mismatch(f"gradient {name}", draw.rows, fault)
        f = Function(old, plain, draw.rows, target, weights)
        found = disagreement(f, x, ours, name)
        if found is not None:
            yield Mismatch(f"gradient {name}", draw.rows, *found)


def _seen(step: Backward, old: Graph, draw: Draw) -> tuple[dict[str, Array], Results]:
    """Return the values that a backward differentiates, and all results but gradients.

    Where rules before it update parameters, these are the values of the graph at their next values;
    so are outputs that none of those rules' losses depends on.
    """
    arrays = source_arrays(old, draw)
    plain = values_of_arrays(old, draw.rows, arrays)
    results = without_gradients(results_of(old, plain))
    written = {name: plain[value] for name, value in step.written(old.updates).items()}
    if not written:
        return plain, results
    values = values_of_arrays(old, draw.rows, arrays | written)
    read = old.upstream(old.outputs[name] for name in step.losses)
    read -= old.upstream(old.outputs[name] for rule in step.before for name in rule.losses)
    later = without_gradients(results_of(old, values))
    moved = [f"output {name}" for name, value in old.outputs.items() if value in read]
    return values, results | {name: later[name] for name in moved}
