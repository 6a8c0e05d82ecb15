"""Means over all rows of what is computed batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from graphc.graph import Graph, Node
from graphc.loss_share import ROWS, SUM, Divisor, Share, counted_by, source_of
from graphc.op import Array
from graphc.ops.losses.row_loss import RowLoss
from graphc.ops.source import Input
from graphc.plan import Plan


class Numbers(NamedTuple):
    """What counts of a batch: its rows, its scalar outputs, and what each counts."""

    rows: int
    scalars: Mapping[str, float]
    counts: Mapping[str, float]


class Means:
    """The scalar outputs of batches, made up to those of all rows.

    A metric counts by the rows of its batch, a loss that is a weighted mean by its weights, and a
    sum is added up, so that it does not matter how the rows were cut into batches.
    """

    def __init__(self, plan: Plan, state: Mapping[str, Array]) -> None:
        """`state` holds the parameters that weights may be computed from."""
        self._counted = {name: Count(counted_by(plan.declared, name)) for name in _scalars(plan)}
        self._state = state
        self._totals: dict[str, float] = {}
        self._counts: dict[str, float] = {}
        self.rows = 0

    def add(self, rows: int, feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Take the outputs of inference on a batch."""
        self.add_numbers(self.numbers(rows, feeds, outputs))

    def numbers(
        self, rows: int, feeds: Mapping[str, Array], outputs: Mapping[str, Array]
    ) -> Numbers:
        """What is taken of the outputs of a batch."""
        scalars = {name: float(array) for name, array in outputs.items() if array.ndim == 0}
        counts = {name: self._counted[name](feeds, rows, self._state) for name in scalars}
        return Numbers(rows, scalars, counts)

    def add_numbers(self, batch: Numbers) -> None:
        """Take what was found on a batch."""
        self.rows += batch.rows
        for name, value in batch.scalars.items():
            count, total = batch.counts[name], self._totals.get(name, 0.0)
            self._totals[name] = total + count * value if count else total
            self._counts[name] = self._counts.get(name, 0.0) + count

    def found(self) -> dict[str, float]:
        """The value of each by name; NaN where all weights were 0."""
        return {name: self._value(name) for name in self._totals}

    def _value(self, name: str) -> float:
        if self._counted[name].by == SUM:
            return self._totals[name]
        return self._totals[name] / self._counts[name] if self._counts[name] else math.nan


class Count(NamedTuple):
    """What the value of a batch counts in that of all batches."""

    by: Share | Divisor

    @classmethod
    def of_steps(cls, plan: Plan) -> Count:
        """Of the sum of a plan's losses: by rows, but where all are divided by the same."""
        graph = plan.declared
        found = [by for loss in graph.losses if (by := counted_by(graph, loss)) != SUM]
        keys = {by.key if isinstance(by, Divisor) else None for by in found}
        same = len(found) == len(graph.losses) and len(keys) == 1
        return cls(found[0] if same else ROWS)

    def __call__(
        self, feeds: Mapping[str, Array], rows: int, state: Mapping[str, Array] | None = None
    ) -> float:
        """Of a batch of so many rows."""
        if not rows:
            return 0.0
        if self.by == SUM:
            return 1.0
        if not isinstance(self.by, Divisor) or any(name not in feeds for name in self.by.inputs):
            return rows
        return self.by(feeds, rows, state)


def _scalars(plan: Plan) -> Iterator[str]:
    graph = plan.declared
    return (name for name, value in graph.outputs.items() if not graph[value].type.rank)


class WeightInput(NamedTuple):
    """The one input that losses take as `weight=`."""

    name: str
    labels: str
    """The labels or targets beside it."""


def weight_input(plan: Plan) -> WeightInput | None:
    """The input of weights; None where losses take none, or not the same."""
    found: dict[str, WeightInput] = {}
    for node, loss in _losses(plan.declared):
        for weight in node.inputs[loss.operands :]:
            source = source_of(plan.declared, weight)
            if isinstance(source.op, Input):
                labels = source_of(plan.declared, node.inputs[1])
                found.setdefault(source.name, WeightInput(source.name, labels.name))
    return found.popitem()[1] if len(found) == 1 else None


def _losses(graph: Graph) -> Iterator[tuple[Node, RowLoss]]:
    for node in graph:
        if isinstance(node.op, RowLoss):
            yield node, node.op
