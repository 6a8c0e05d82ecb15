"""Checks the pass shard, and backward after it: shards must add up to the whole batch.

A batch is cut into shards of different sizes, which run in step.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from graphc.check.validation.compare import Mismatch, first_mismatch
from graphc.check.validation.differences import disagreement
from graphc.check.validation.draws import Draw, given_of
from graphc.check.validation.in_step import (
    Part,
    Values,
    given_in_step,
    joined_results,
    parts_of,
    rows_of,
    share,
    values_in_step,
)
from graphc.check.validation.run import (
    EPS,
    largest,
    results_of,
    spread,
    values_of_arrays,
)
from graphc.compiler.loss_share import ROWS, SUM
from graphc.ir.graph import Graph
from graphc.ir.init import generator
from graphc.ir.op import Array
from graphc.ir.tensor_type import Batch
from graphc.ops.dropout import DropoutMask
from graphc.ops.exchange import ShardInput
from graphc.ops.norm import BatchNormTrain
from graphc.ops.shape import StopGradient
from graphc.ops.source import Input, Parameter

if TYPE_CHECKING:
    from passes.backward import Backward
    from passes.shard import Shard


# ---------------------------------------------------------------- shard


def shard_mismatch(step: Shard, old: Graph, new: Graph, draw: Draw) -> Mismatch | None:
    """Return a result of shards that is not what the graph before computes for their rows.

    That graph runs on each shard's rows alone, but with the whole batch's masks and, if it is
    synchronised, with batch normalisation over all rows, and with weighted means divided as the
    pass says.  The losses of all shards must add up to that of the batch; if no way of counting
    rows or weights gives that, since a shard takes statistics of its own rows, to what the pass
    says of how they count.
    """
    parts = parts_of(draw.rows)
    whole = values_of_arrays(old, draw.rows, given_of(old, draw))
    given = given_in_step(old, draw, parts)
    for node in old:
        if isinstance(node.op, DropoutMask):
            for arrays, part in zip(given, parts, strict=True):
                arrays[node.name] = rows_of(node.type, whole[node.name], part)
    together = _normalised(old) if step.synchronise else ()
    fed = given_in_step(new, draw, parts)
    divisors = _divisors(step, old, parts, values_in_step(old, parts, given, together))
    for arrays, given_after, numbers in zip(given, fed, divisors, strict=True):
        arrays.update(numbers)
        given_after.update((k, v) for k, v in numbers.items() if isinstance(new[k].op, ShardInput))
    alone = values_in_step(old, parts, given, together)
    after = values_in_step(new, parts, fed)
    expected, found = joined_results(old, alone), joined_results(new, after)
    counted = dict(step.counted)
    of_rows = old.downstream(n.name for n in old if isinstance(n.op, Input) and n.type.batched)
    for name in old.losses:
        terms = [np.asarray(values[old.outputs[name]]) for values in alone]
        kinds = [counted.get(name, ROWS)]
        kinds += [ROWS, SUM] if old.outputs[name] in of_rows else []
        ways = [[share(kind, part, draw.rows) for part in parts] for kind in kinds]
        ways += _by_weights(old, draw, parts) if old.outputs[name] in of_rows else []
        expected[f"output {name}"] = _total(terms, ways, whole[old.outputs[name]])
        found[f"output {name}"] = np.asarray(sum(values[new.outputs[name]] for values in after))
    plain = results_of(old, whole)
    moved = spread(old, draw.rows, given_of(old, draw), plain)
    bounds = {k: moved.get(k, 0.0) + 64 * EPS * largest(v) for k, v in expected.items()}
    return first_mismatch(expected, found, bounds, draw.rows, "parts of a batch make it up")


def _normalised(graph: Graph) -> set[str]:
    """Return batch normalisations and their statistics."""
    norms = [node.name for node in graph if isinstance(node.op, BatchNormTrain)]
    return {*norms, *(f"{name}.{part}" for name in norms for part in ("mean", "var"))}


def _divisors(
    step: Shard, graph: Graph, parts: Sequence[Part], alone: Sequence[Values]
) -> list[Values]:
    """Return for each shard its share of the divisor of each weighted mean of the batch."""
    totals = {name: sum(v[name] for v in alone) for name in step.divisors if name in graph}
    shares = [share(ROWS, part, parts[-1][1]) for part in parts]
    return [
        {k: np.asarray(number * total, graph[k].type.dtype) for k, total in totals.items()}
        for number in shares
    ]


def _by_weights(graph: Graph, draw: Draw, parts: Sequence[Part]) -> list[list[float]]:
    """Return the shares by each input that has a number for each row."""
    found = []
    for node in graph:
        if isinstance(node.op, Input) and node.type.is_float and node.type.shape == (Batch(),):
            weights = draw.array(node).astype(np.float64)
            with np.errstate(all="ignore"):
                found.append([float(weights[a:b].sum() / weights.sum()) for a, b in parts])
    return found


def _total(terms: Sequence[Array], ways: Sequence[Sequence[float]], whole: Array) -> Array:
    """Return the loss of the batch by the first way of counting that gives it, or by the first."""
    totals = [np.asarray(sum(s * t for s, t in zip(way, terms, strict=True))) for way in ways]
    return next((t for t in totals if np.allclose(t, whole, rtol=1e-9, atol=0)), totals[0])


# ---------------------------------------------------------------- backward


def summed_derivative_mismatch(
    step: Backward, old: Graph, new: Graph, draw: Draw
) -> Mismatch | None:
    """Return a parameter's gradient whose parts do not add up to that of the sum of the losses.

    It is for graphs that continue after sums over shards: there a shard's numbers affect all
    losses.
    """
    parts = parts_of(draw.rows)
    given = given_in_step(new, draw, parts)
    plain = values_in_step(new, parts, given)
    for arrays, values in zip(given, plain, strict=True):
        arrays.update((n.name, values[n.name]) for n in old if isinstance(n.op, StopGradient))
    for name, gradient in new.gradients.items():
        if isinstance(old[name].op, Parameter):
            x, ours = given[0][name], np.asarray(sum(values[gradient] for values in plain))
            f = partial(_loss_of, step, old, parts, given, name)
            found = disagreement(f, x, ours, generator(0, f"validation:{name}"))
            if found is not None:
                return Mismatch(f"gradient {name}", draw.rows, *found)
    return None


def _loss_of(
    step: Backward,
    graph: Graph,
    parts: Sequence[Part],
    given: Sequence[Values],
    name: str,
    x: Array,
) -> float:
    """Return the losses of all shards if the parameter of that name is x."""
    run = values_in_step(graph, parts, [{**arrays, name: x} for arrays in given])
    losses = [graph.outputs[loss] for loss in step.losses]
    return float(sum(values[loss].sum() for values in run for loss in losses))
