"""What shards find must make up what the batch means: the passes shard, and backward after it.

A batch is cut into shards of different sizes, which run in step.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from graphc.graph import Graph
from graphc.init import generator
from graphc.loss_share import ROWS, SUM, WEIGHT
from graphc.op import Array
from graphc.ops.dropout import DropoutMask
from graphc.ops.norm import BatchNormTrain
from graphc.ops.shape import StopGradient
from graphc.ops.source import Input, Parameter
from graphc.tensor_type import Batch
from graphc.validation.compare import Mismatch, first_mismatch
from graphc.validation.differences import disagreement
from graphc.validation.draws import Draw, given_of
from graphc.validation.in_step import (
    Part,
    Values,
    given_in_step,
    joined_results,
    parts_of,
    rows_of,
    share,
    values_in_step,
)
from graphc.validation.run import (
    EPS,
    largest,
    results_of,
    spread,
    values_of_arrays,
)

if TYPE_CHECKING:
    from passes.backward import Backward
    from passes.shard import Shard


# ---------------------------------------------------------------- shard


def shard_mismatch(step: Shard, old: Graph, new: Graph, draw: Draw) -> Mismatch | None:
    """A result of shards that is not what their rows have in the graph before.

    That runs on each shard's rows alone, but with the whole batch's masks and, where it is
    synchronised, with batch normalisation over all rows.  The losses of all shards must add up
    to that of the batch; where no way of counting rows or weights gives that, since a shard takes
    statistics of its own rows, to what the pass says of how they count.
    """
    parts = parts_of(draw.rows)
    whole = values_of_arrays(old, draw.rows, given_of(old, draw))
    given = given_in_step(old, draw, parts)
    for node in old:
        if isinstance(node.op, DropoutMask):
            for arrays, part in zip(given, parts, strict=True):
                arrays[node.name] = rows_of(node.type, whole[node.name], part)
    alone = values_in_step(old, parts, given, _normalised(old) if step.synchronise else ())
    after = values_in_step(new, parts, given_in_step(new, draw, parts))
    expected, found = joined_results(old, alone), joined_results(new, after)
    counted = dict(step.counted)
    of_rows = old.downstream(n.name for n in old if isinstance(n.op, Input) and n.type.batched)
    for name in old.losses:
        terms = [np.asarray(values[old.outputs[name]]) for values in alone]
        ways = [counted.get(name, ROWS)]
        if old.outputs[name] in of_rows:
            ways += [ROWS, SUM, *_weights(old)]
        of_batch = whole[old.outputs[name]]
        expected[f"output {name}"] = _total(old, draw, parts, terms, ways, of_batch)
        found[f"output {name}"] = np.asarray(sum(values[new.outputs[name]] for values in after))
    plain = results_of(old, whole)
    moved = spread(old, draw.rows, given_of(old, draw), plain)
    bounds = {k: moved.get(k, 0.0) + 64 * EPS * largest(v) for k, v in expected.items()}
    return first_mismatch(expected, found, bounds, draw.rows, "parts of a batch make it up")


def _normalised(graph: Graph) -> set[str]:
    """Batch normalisations and their statistics."""
    norms = [node.name for node in graph if isinstance(node.op, BatchNormTrain)]
    return {*norms, *(f"{name}.{part}" for name in norms for part in ("mean", "var"))}


def _weights(graph: Graph) -> list[str]:
    """The ways of counting by an input that has a number for each row."""
    return [
        f"{WEIGHT}{node.name}"
        for node in graph
        if isinstance(node.op, Input) and node.type.is_float and node.type.shape == (Batch(),)
    ]


def _total(
    graph: Graph,
    draw: Draw,
    parts: Sequence[Part],
    terms: Sequence[Array],
    ways: Sequence[str],
    whole: Array,
) -> Array:
    """The loss of the batch by the first way of counting that gives it, or else by the first."""
    totals = []
    for way in ways:
        shares = [share(way, part, graph, draw) for part in parts]
        totals.append(np.asarray(sum(s * t for s, t in zip(shares, terms, strict=True))))
    return next((t for t in totals if np.allclose(t, whole, rtol=1e-9, atol=0)), totals[0])


# ---------------------------------------------------------------- backward


def summed_derivative_mismatch(
    step: Backward, old: Graph, new: Graph, draw: Draw
) -> Mismatch | None:
    """A gradient of a parameter whose parts do not make up that of the sum of the losses.

    For graphs that go on with sums over shards: there a shard's numbers matter to all losses.
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
    """The losses of all shards where the parameter of that name is x."""
    run = values_in_step(graph, parts, [{**arrays, name: x} for arrays in given])
    losses = [graph.outputs[loss] for loss in step.losses]
    return float(sum(values[loss].sum() for values in run for loss in losses))
