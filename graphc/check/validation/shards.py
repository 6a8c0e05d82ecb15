"""Judges passes for shards of a batch, which together must compute the results of the batch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from graphc.check.central_differences import disagreement
from graphc.check.validation.compare import Case, Mismatch
from graphc.check.validation.run import (
    EPS,
    Draw,
    Outcome,
    Results,
    largest,
    result_names,
    source_arrays,
    value_of,
    values_of,
)
from graphc.compiler.loss_share import ROWS, SUM
from graphc.ir.graph import Graph, Node
from graphc.ir.interpreter import interpret
from graphc.ir.op import Array
from graphc.ir.tensor_type import N, TensorType, align
from graphc.ops.exchange import Receive, Send, Total
from graphc.ops.norm import BatchNormTrain
from graphc.runtime.row_axis import RowAxis
from passes.backward import Backward
from passes.shard import Shard

Values = dict[str, Array]
Rows = tuple[int, int]
"""The rows of a shard, as (first, end)."""

MOST = 4
"""The most shards of a batch."""


@dataclass(frozen=True)
class Batch:
    """A batch of random rows, split into shards of different sizes or of near-equal ones."""

    draw: Draw
    count: int = 0
    """The number of near-equal shards, the larger ones first; 0 means different sizes."""

    @property
    def size(self) -> int:
        """The number of rows of the batch."""
        return self.draw.rows

    @cached_property
    def shards(self) -> list[Rows]:
        """The rows of each shard: half of the rows that are left, and all for the last."""
        if self.count:
            rows = np.array_split(np.arange(self.size), self.count)
            return [(int(part[0]), int(part[-1]) + 1) for part in rows]
        found: list[Rows] = []
        start = 0
        while start < self.size:
            last = len(found) == MOST - 1
            stop = self.size if last else start + (self.size - start + 1) // 2
            found.append((start, stop))
            start = stop
        return found

    def shares(self, kind: str) -> list[float]:
        """Return the factors of a loss of that kind; see graphc/compiler/loss_share.py."""
        return [1.0 if kind == SUM else (stop - start) / self.size for start, stop in self.shards]

    def arrays(self, graph: Graph) -> list[Values]:
        """Return for each shard its rows of the inputs, all states, and its own constants."""
        whole = source_arrays(graph, self.draw)
        found = [
            {name: rows_of(graph[name].type, array, rows) for name, array in whole.items()}
            for rows in self.shards
        ]
        for node in graph:
            if node.op.is_of_shard:
                for arrays, number in zip(found, self._numbers(node), strict=True):
                    arrays[node.name] = np.asarray(number, node.type.dtype)
        return found

    def _numbers(self, node: Node) -> Sequence[float]:
        """Return the number that an input of the shard takes, for each shard.

        The divisor of a mean may be any number, the same for each row.
        """
        role = node.op.role
        firsts = [start for start, _ in self.shards]
        return firsts if role.kind == "first_row" else self.shares(role.part)

    def values(
        self, graph: Graph, given: Sequence[Values] | None = None, whole: Collection[str] = ()
    ) -> list[Values]:
        """Return the value of every node on each shard, with the arrays `given` or random ones."""
        return on_shards(graph, self.shards, self.arrays(graph) if given is None else given, whole)


def on_shards(
    graph: Graph, shards: Sequence[Rows], given: Sequence[Values], whole: Collection[str] = ()
) -> list[Values]:
    """Return the value of every node on each shard; sums over shards are the same on all.

    `given` has the arrays of each shard.  The nodes named in `whole` read the rows of all shards.
    """

    def rule(node: Node, ins: list[list[Array]]) -> list[Array]:
        """Return the values of a node on the shards."""
        if node.name in whole:
            types = [graph[name].type for name in node.inputs]
            pairs = zip(types, ins, strict=True)
            joined = [_joined(type, own) if type.batched else own[0] for type, own in pairs]
            value = np.asarray(value_of(node, joined, shards[-1][1], True), order="C")
            return [rows_of(node.type, value, rows) for rows in shards]
        found = (
            value_of(node, [values[i] for values in ins], stop - start, True)
            for i, (start, stop) in enumerate(shards)
        )
        return [np.asarray(value, order="C") for value in found]

    def summed(node: Node, values: list[Array]) -> list[Array]:
        if isinstance(node.op, (Total, Receive)):
            return [np.asarray(sum(values))] * len(shards)
        return values

    known = {name: [arrays[name] for arrays in given] for name in given[0]}
    with np.errstate(all="ignore"):
        found = interpret(graph, rule, known, summed)
    return [{name: values[i] for name, values in found.items()} for i in range(len(shards))]


def rows_of(type: TensorType, array: Array, rows: Rows) -> Array:
    """Return the shard's rows of an array; all of it if it has no rows."""
    axis = RowAxis.of(type)
    return array if axis is None else np.ascontiguousarray(axis.rows(array, *rows))


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


def shard_cases(step: Shard, old: Graph, new: Graph, draw: Draw) -> Iterator[Case]:
    """Yield the results of shards, and what the graph before computes for their rows.

    That graph runs on each shard's rows alone, but with the whole batch's masks and, if it is
    synchronised, with batch normalisation over all rows, and with weighted means divided as the
    pass says.  The losses of all shards must add up to that of the batch; if no way of counting
    rows or weights gives that, since a shard takes statistics of its own rows, to what the pass
    says of how they count.
    """
    batch, whole = Batch(draw), values_of(old, draw)
    given, fed = batch.arrays(old), batch.arrays(new)
    for node in old:
        if node.op.is_random:
            for arrays, rows in zip(given, batch.shards, strict=True):
                arrays[node.name] = rows_of(node.type, whole[node.name], rows)
    together = _normalised(old) if step.synchronise else ()
    divisors = _divisors(step, old, batch, batch.values(old, given, together))
    for arrays, given_after, numbers in zip(given, fed, divisors, strict=True):
        arrays.update(numbers)
        given_after.update((k, v) for k, v in numbers.items() if new[k].op.is_of_shard)
    alone, after = batch.values(old, given, together), batch.values(new, fed)
    expected, found = joined_results(old, alone), joined_results(new, after)
    counted = dict(step.counted)
    of_rows = old.downstream(n.name for n in old if n.op.is_input and n.type.batched)
    for name in old.losses:
        terms = [np.asarray(values[old.outputs[name]]) for values in alone]
        ways = [batch.shares(counted.get(name, ROWS))]
        if old.outputs[name] in of_rows:
            ways += [batch.shares(ROWS), batch.shares(SUM), *_by_weights(old, batch)]
        expected[f"output {name}"] = _total(terms, ways, whole[old.outputs[name]])
        found[f"output {name}"] = np.asarray(sum(values[new.outputs[name]] for values in after))
    outcome = Outcome.of(old, draw)

    def bounds(runs: int) -> dict[str, float]:
        moved = outcome.bounds(runs)
        return {k: moved.get(k, 0.0) + 64 * EPS * largest(v) for k, v in expected.items()}

    yield Case(expected, found, "the shards of a batch must add up to it", bounds)


def _normalised(graph: Graph) -> set[str]:
    """Return batch normalisations and their statistics."""
    norms = [node.name for node in graph if isinstance(node.op, BatchNormTrain)]
    return {*norms, *(f"{name}.{part}" for name in norms for part in ("mean", "var"))}


def _divisors(step: Shard, graph: Graph, batch: Batch, alone: Sequence[Values]) -> list[Values]:
    """Return for each shard its share of the divisor of each weighted mean of the batch."""
    totals = {name: sum(v[name] for v in alone) for name in step.divisors if name in graph}
    return [
        {k: np.asarray(share * total, graph[k].type.dtype) for k, total in totals.items()}
        for share in batch.shares(ROWS)
    ]


def _by_weights(graph: Graph, batch: Batch) -> list[list[float]]:
    """Return the shares by each input that has a number for each row."""
    found = []
    for node in graph:
        if node.op.is_input and node.type.is_float and node.type.shape == (N,):
            weights = batch.draw.array(node).astype(np.float64)
            with np.errstate(all="ignore"):
                total = weights.sum()
                found.append([float(weights[a:b].sum() / total) for a, b in batch.shards])
    return found


def _total(terms: Sequence[Array], ways: Sequence[Sequence[float]], whole: Array) -> Array:
    """Return the loss of the batch by the first way of counting that gives it, or by the first."""
    totals = [np.asarray(sum(s * t for s, t in zip(way, terms, strict=True))) for way in ways]
    return next((t for t in totals if np.allclose(t, whole, rtol=1e-9, atol=0)), totals[0])


# ---------------------------------------------------------------- backward after shard


def summed_derivative_cases(
    step: Backward, old: Graph, new: Graph, draw: Draw
) -> Iterator[Mismatch]:
    """Yield each parameter's gradient whose parts do not add up to that of the sum of the losses.

    It is for graphs that continue after sums over shards: there a shard's numbers affect all
    losses.
    """
    batch = Batch(draw)
    given, losses = batch.arrays(new), [old.outputs[loss] for loss in step.losses]
    plain = batch.values(new, given)
    for arrays, values in zip(given, plain, strict=True):
        arrays.update((n.name, values[n.name]) for n in old if n.op.stops_gradients)
    for name, gradient in new.gradients.items():
        if old[name].op.is_parameter:

            def loss(x: Array, name: str = name) -> float:
                run = batch.values(old, [{**arrays, name: x} for arrays in given])
                return float(sum(values[each].sum() for values in run for each in losses))

            ours = np.asarray(sum(values[gradient] for values in plain))
            found = disagreement(loss, given[0][name], ours, name)
            if found is not None:
                yield Mismatch(f"gradient {name}", draw.rows, *found)


# ---------------------------------------------------------------- the exchange between shards


def exchange_cases(old: Graph, new: Graph, draw: Draw) -> Iterator[Case]:
    """Yield gradients and losses beside the shards' sums, and states beside their means."""
    batch = Batch(draw)
    before, after = batch.values(old), batch.values(new)
    expected, found = joined_results(old, before), joined_results(new, after)
    sizes: dict[str, float] = {}

    def total(name: str, value: str, kind: str) -> None:
        shares = batch.shares(kind)
        terms = [s * values[value] for s, values in zip(shares, before, strict=True)]
        expected[name] = np.stack([np.asarray(sum(terms))] * len(shares))
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
    bounds = {k: 64 * EPS * (sizes.get(k, 0.0) + largest(v)) for k, v in expected.items()}
    yield Case(expected, found, "it must be the sum over the shards", lambda _: bounds, (0,))


def bucket_cases(old: Graph, new: Graph, draw: Draw) -> Iterator[Mismatch]:
    """Yield a bucket that is not awaited as it is sent, or whose values share bytes."""
    sent = _sends(new)
    for node in new:
        if isinstance(node.op, (Send, Receive)):
            send = new[node.inputs[0]].op if isinstance(node.op, Receive) else node.op
            what = f"bucket {node.op.bucket}"
            if not isinstance(send, Send) or send.bucket != node.op.bucket:
                yield Mismatch(what, draw.rows, "awaits another", node=node.name)
                return
            count = sum(op.bucket == send.bucket for _, op in sent)
            if node.op.members != count:
                fault = f"has {count} values, {node.op.members} are expected"
                yield Mismatch(what, draw.rows, fault, node=node.name)
    end = 0
    for node, op in sorted(sent, key=lambda pair: pair[1].offset):
        if op.offset < end:
            fault = "overlaps another value"
            yield Mismatch(f"send {node.name}", draw.rows, fault, node=node.name)
        end = op.offset + align(node.type.nbytes(1))


def _sends(graph: Graph) -> list[tuple[Node, Send]]:
    return [(node, node.op) for node in graph if isinstance(node.op, Send)]


def held_cases(old: Graph, new: Graph, draw: Draw) -> Iterator[Case | Mismatch]:
    """Yield a value that a shard before the last does not send, sends otherwise, or changes.

    If a value has no user the last shard does not send it, and then no other may.
    """
    for changed in (*new.updates, *new.gradients):
        yield Mismatch(f"update {changed}", draw.rows, "is made by the last shard only")
    kept = new.upstream(new.outputs.values())
    alive = old.upstream(old.roots)
    sends = [node.name for node, _ in _sends(old) if node.name in alive]
    for name in sends:
        if name not in kept:
            yield Mismatch(f"send {name}", draw.rows, "is gone", "all shards send it")
    for node, _ in _sends(new):
        if node.name in kept and node.name not in alive:
            yield Mismatch(f"send {node.name}", draw.rows, "is sent", "no shard awaits it")
    batch = Batch(draw)
    before, after = (
        {f"send {n}": np.stack([values[n] for values in run]) for n in sends}
        for run in map(batch.values, (old, new))
    )
    yield Case(before, after, "all shards must send the same")
