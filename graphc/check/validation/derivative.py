"""Checks Backward against an independent oracle: differences of the losses in random directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from graphc.check.validation.compare import Mismatch, first_mismatch
from graphc.check.validation.differences import Function, disagreement
from graphc.check.validation.draws import Draw, given_of
from graphc.check.validation.run import Results, results_of, values_of_arrays
from graphc.ir.graph import Graph
from graphc.ir.init import generator
from graphc.ir.op import Array

if TYPE_CHECKING:
    from passes.backward import Backward


def derivative_mismatch(step: Backward, old: Graph, new: Graph, draw: Draw) -> Mismatch | None:
    """Return a gradient that differences do not confirm, or a result that Backward changed.

    Each of `wrt` is tried by itself, in float64, against the sum of the losses, or of the outputs
    times the cotangents that are fed.  A node without gradient must not affect that sum.
    """
    values = values_of_arrays(new, draw.rows, given_of(new, draw))
    plain = values_of_arrays(old, draw.rows, given_of(old, draw))
    changed = first_mismatch(
        _others(old, plain), _others(new, values), None, draw.rows, "backward leaves it as it is"
    )
    if changed is not None:
        return changed
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
            told = f"has shape {list(ours.shape)}, {name!r} has {list(x.shape)}"
            return Mismatch(f"gradient {name}", draw.rows, told)
        f = Function(old, plain, draw.rows, target, weights)
        found = disagreement(f, x, ours, generator(0, f"validation:{name}"))
        if found is not None:
            return Mismatch(f"gradient {name}", draw.rows, *found)
    return None


def _others(graph: Graph, values: Mapping[str, Array]) -> Results:
    """Return all results but gradients."""
    found = results_of(graph, values)
    return {name: value for name, value in found.items() if not name.startswith("gradient ")}
