"""Checks the passes for shards of a batch: together they must compute what the whole batch does."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

import numpy as np

from graphc.check.central_differences import disagreement
from graphc.check.validation.run import (
    EPS,
    Draw,
    Mismatch,
    Results,
    first_mismatch,
    given_of,
    largest,
    result_names,
    results_of,
    spread,
    value_of,
    values_of,
)
from graphc.compiler.loss_share import ROWS, SUM
from graphc.ir.graph import Graph, Node
from graphc.ir.interpreter import interpret
from graphc.ir.op import Array
from graphc.ir.tensor_type import Batch, TensorType, align
from graphc.ops.exchange import Receive, Send, Total
from graphc.ops.norm import BatchNormTrain
from graphc.runtime.rows import RowAxis
from passes.backward import Backward
from passes.shard import Shard

Values = dict[str, Array]
Part = tuple[int, int]
"""The rows of a shard, as (first, end)."""

MOST = 4
"""The most shards that a batch is cut into."""


def parts_of(rows: int) -> list[Part]:
    """Return shards of different sizes: each has half of the rows left, the last has all."""
    found: list[Part] = []
    start = 0
    while start < rows:
        last = len(found) == MOST - 1
        stop = rows if last else start + (rows - start + 1) // 2
        found.append((start, stop))
        start = stop
    return found


def share(kind: str, part: Part, rows: int) -> float:
    """Return the share by which a loss of that kind counts; see graphc/compiler/loss_share.py."""
    return 1.0 if kind == SUM else (part[1] - part[0]) / rows


def given_in_step(graph: Graph, draw: Draw, parts: Sequence[Part]) -> list[Values]:
    """Return for each shard its rows of every input, all of each state, and its numbers."""
    numbers = [node for node in graph if node.op.is_of_shard]
    whole = given_of(graph, draw)
    return [
        {name: rows_of(graph[name].type, array, part) for name, array in whole.items()}
        | {node.name: _number(node, part, draw.rows) for node in numbers}
        for part in parts
    ]


def _number(node: Node, part: Part, rows: int) -> Array:
    """Return the number that an input of the shard takes.

    The divisor of a mean may be any number, the same for each row.
    """
    role = node.op.role
    number = part[0] if role.kind == "first_row" else share(role.part, part, rows)
    return np.asarray(number, node.type.dtype)


def values_in_step(
    graph: Graph, parts: Sequence[Part], given: Sequence[Values], whole: Collection[str] = ()
) -> list[Values]:
    """Return the value of every node on each shard; sums over shards are the same on all.

    The nodes named in `whole` read the rows of all shards, as they would in the batch.
    """

    def rule(node: Node, ins: list[list[Array]]) -> list[Array]:
        if node.name in whole:
            types = [graph[name].type for name in node.inputs]
            pairs = zip(types, ins, strict=True)
            joined = [_joined(type, own) if type.batched else own[0] for type, own in pairs]
            value = np.asarray(value_of(node, joined, parts[-1][1], True), order="C")
            return [rows_of(node.type, value, part) for part in parts]
        own = ([values[i] for values in ins] for i in range(len(parts)))
        found = (value_of(node, each, b - a, True) for (a, b), each in zip(parts, own, strict=True))
        return [np.asarray(value, order="C") for value in found]

    def summed(node: Node, values: list[Array]) -> list[Array]:
        if isinstance(node.op, (Total, Receive)):
            return [np.asarray(sum(values))] * len(parts)
        return values

    known = {name: [arrays[name] for arrays in given] for name in given[0]}
    with np.errstate(all="ignore"):
        found = interpret(graph, rule, known, summed)
    return [{name: values[i] for name, values in found.items()} for i in range(len(parts))]


def rows_of(type: TensorType, array: Array, part: Part) -> Array:
    """Return the shard's rows of an array; all of it if it has no rows."""
    axis = RowAxis.of(type)
    return array if axis is None else np.ascontiguousarray(axis.rows(array, *part))


def _joined(type: TensorType, arrays: Sequence[Array]) -> Array:
    """Return the rows of all shards in one array; of a value without rows, each shard's."""
    axis = RowAxis.of(type)
    return np.stack(arrays) if axis is None else np.concatenate(arrays, axis.axis)


def joined_results(graph: Graph, found: Sequence[Values]) -> Results:
    """Return the results of all shards; for results without rows, those of each shard."""
    return {
        key: _joined(graph[name].type, [values[name] for values in found])
        for key, name in result_names(graph).items()
    }


# ---------------------------------------------------------------- the pass shard


def shard_mismatch(step: Shard, old: Graph, new: Graph, draw: Draw) -> Mismatch | None:
    """Return a result of shards that is not what the graph before computes for their rows.

    That graph runs on each shard's rows alone, but with the whole batch's masks and, if it is
    synchronised, with batch normalisation over all rows, and with weighted means divided as the
    pass says.  The losses of all shards must add up to that of the batch; if no way of counting
    rows or weights gives that, since a shard takes statistics of its own rows, to what the pass
    says of how they count.
    """
    parts = parts_of(draw.rows)
    whole = values_of(old, draw)
    given = given_in_step(old, draw, parts)
    for node in old:
        if node.op.is_random:
            for arrays, part in zip(given, parts, strict=True):
                arrays[node.name] = rows_of(node.type, whole[node.name], part)
    together = _normalised(old) if step.synchronise else ()
    fed = given_in_step(new, draw, parts)
    divisors = _divisors(step, old, parts, values_in_step(old, parts, given, together))
    for arrays, given_after, numbers in zip(given, fed, divisors, strict=True):
        arrays.update(numbers)
        given_after.update((k, v) for k, v in numbers.items() if new[k].op.is_of_shard)
    alone = values_in_step(old, parts, given, together)
    after = values_in_step(new, parts, fed)
    expected, found = joined_results(old, alone), joined_results(new, after)
    counted = dict(step.counted)
    of_rows = old.downstream(n.name for n in old if n.op.is_input and n.type.batched)
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
        if node.op.is_input and node.type.is_float and node.type.shape == (Batch(),):
            weights = draw.array(node).astype(np.float64)
            with np.errstate(all="ignore"):
                found.append([float(weights[a:b].sum() / weights.sum()) for a, b in parts])
    return found


def _total(terms: Sequence[Array], ways: Sequence[Sequence[float]], whole: Array) -> Array:
    """Return the loss of the batch by the first way of counting that gives it, or by the first."""
    totals = [np.asarray(sum(s * t for s, t in zip(way, terms, strict=True))) for way in ways]
    return next((t for t in totals if np.allclose(t, whole, rtol=1e-9, atol=0)), totals[0])


# ---------------------------------------------------------------- backward after shard


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
        arrays.update((n.name, values[n.name]) for n in old if n.op.stops_gradients)
    for name, gradient in new.gradients.items():
        if old[name].op.is_parameter:
            x, ours = given[0][name], np.asarray(sum(values[gradient] for values in plain))
            f = partial(_loss_of, step, old, parts, given, name)
            found = disagreement(f, x, ours, name)
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


# ---------------------------------------------------------------- data_parallel and keep_sends


def exchange_mismatch(old: Graph, new: Graph, draw: Draw) -> Mismatch | None:
    """Return a gradient or loss that is not the shards' sum, or a state that is not their mean."""
    parts = parts_of(draw.rows)
    before = values_in_step(old, parts, given_in_step(old, draw, parts))
    after = values_in_step(new, parts, given_in_step(new, draw, parts))
    expected, found = joined_results(old, before), joined_results(new, after)
    sizes = dict.fromkeys(expected, 0.0)

    def total(name: str, value: str, kind: str) -> None:
        shares = [share(kind, part, draw.rows) for part in parts]
        terms = [s * values[value] for s, values in zip(shares, before, strict=True)]
        expected[name] = np.stack([np.asarray(sum(terms))] * len(parts))
        sizes[name] = sum(map(largest, map(np.asarray, terms)))

    for name, value in old.gradients.items():
        if old[name].op.is_parameter:
            total(f"gradient {name}", value, SUM)
        else:
            del expected[f"gradient {name}"]
    for name in old.losses:
        total(f"output {name}", old.outputs[name], SUM)
    for name, value in old.updates.items():
        if old[value].type.is_float:
            total(f"update {name}", value, ROWS)
    bounds = {name: 64 * EPS * (size + largest(expected[name])) for name, size in sizes.items()}
    return first_mismatch(expected, found, bounds, draw.rows, "shards add up what they find")


def bucket_mismatch(old: Graph, new: Graph, draw: Draw) -> Mismatch | None:
    """Return a bucket that is not awaited as it is sent, or whose values share bytes."""
    sent = _sends(new)
    for node in new:
        if isinstance(node.op, (Send, Receive)):
            send = new[node.inputs[0]].op if isinstance(node.op, Receive) else node.op
            what = f"bucket {node.op.bucket}"
            if not isinstance(send, Send) or send.bucket != node.op.bucket:
                return Mismatch(what, draw.rows, "awaits another", node=node.name)
            count = sum(op.bucket == send.bucket for _, op in sent)
            if node.op.members != count:
                fault = f"has {count} values, {node.op.members} are expected"
                return Mismatch(what, draw.rows, fault, node=node.name)
    end = 0
    for node, op in sorted(sent, key=lambda pair: pair[1].offset):
        if op.offset < end:
            fault = "lies in another's place"
            return Mismatch(f"send {node.name}", draw.rows, fault, node=node.name)
        end = op.offset + align(node.type.nbytes(1))
    return None


def _sends(graph: Graph) -> list[tuple[Node, Send]]:
    return [(node, node.op) for node in graph if isinstance(node.op, Send)]


def held_mismatch(old: Graph, new: Graph, draw: Draw) -> Mismatch | None:
    """Return a value that a shard before the last does not send, sends otherwise, or changes.

    If a value has no user the last shard does not send it, and then no other may.
    """
    changed = next(iter([*new.updates, *new.gradients]), None)
    if changed is not None:
        return Mismatch(f"update {changed}", draw.rows, "is made by the last shard only")
    kept = new.upstream(new.outputs.values())
    alive = old.upstream(old.roots)
    sends = [node.name for node, _ in _sends(old) if node.name in alive]
    for name in sends:
        if name not in kept:
            return Mismatch(f"send {name}", draw.rows, "is gone", "all shards send it")
    for node, _ in _sends(new):
        if node.name in kept and node.name not in alive:
            return Mismatch(f"send {node.name}", draw.rows, "is sent", "nobody awaits it")
    parts = parts_of(draw.rows)
    runs = [values_in_step(g, parts, given_in_step(g, draw, parts)) for g in (old, new)]
    before, after = (
        {f"send {n}": np.stack([values[n] for values in run]) for n in sends} for run in runs
    )
    return first_mismatch(before, after, None, draw.rows, "all shards send the same way")
