"""Means over all rows of outputs that are computed batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from graphc.compiler.loss_share import ROWS, SUM, Divisor, Share, counted_by, source_of
from graphc.compiler.plan import Plan
from graphc.ir.op import Array
from graphc.ops.losses.base import RowLoss


class Numbers(NamedTuple):
    """The numbers of a batch that enter means: its rows, its scalar outputs, and their weights."""

    rows: int
    scalars: Mapping[str, float]
    counts: Mapping[str, float]


class Means:
    """The scalar outputs of batches, combined into those of all rows.

    Metrics are weighted by the rows of a batch, losses that are weighted means by their weights;
    sums are added up, so that it does not matter how the rows were cut into batches.
    """

    def __init__(self, plan: Plan, state: Mapping[str, Array]) -> None:
        """Prepare the weights of scalars; `state` has the parameters that they may depend on."""
        self._counted = {name: Count(counted_by(plan.declared, name)) for name in _scalars(plan)}
        self._state = state
        self._totals: dict[str, float] = {}
        self._counts: dict[str, float] = {}
        self.rows = 0

    def add(self, rows: int, feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Add the outputs of inference on a batch."""
        self.add_numbers(self.numbers(rows, feeds, outputs))

    def numbers(
        self, rows: int, feeds: Mapping[str, Array], outputs: Mapping[str, Array]
    ) -> Numbers:
        """Return the numbers that enter the means from the outputs of a batch."""
        scalars = {name: float(array) for name, array in outputs.items() if array.ndim == 0}
        counts = {name: self._counted[name](feeds, rows, self._state) for name in scalars}
        return Numbers(rows, scalars, counts)

    def add_numbers(self, batch: Numbers) -> None:
        """Add the numbers of a batch."""
        self.rows += batch.rows
        for name, value in batch.scalars.items():
            count, total = batch.counts[name], self._totals.get(name, 0.0)
            self._totals[name] = total + count * value if count else total
            self._counts[name] = self._counts.get(name, 0.0) + count

    def found(self) -> dict[str, float]:
        """Return the value of each scalar by name; NaN if all its weights were 0."""
        return {name: self._value(name) for name in self._totals}

    def _value(self, name: str) -> float:
        if self._counted[name].by == SUM:
            return self._totals[name]
        return self._totals[name] / self._counts[name] if self._counts[name] else math.nan


class Count(NamedTuple):
    """The weight of a batch's value in the value of all batches."""

    by: Share | Divisor

    @classmethod
    def of_steps(cls, plan: Plan) -> Count:
        """Return the weight of the sum of a plan's losses: by rows, unless all have one divisor."""
        graph = plan.declared
        found = [by for loss in graph.losses if (by := counted_by(graph, loss)) != SUM]
        keys = {by.key if isinstance(by, Divisor) else None for by in found}
        same = len(found) == len(graph.losses) and len(keys) == 1
        return cls(found[0] if same else ROWS)

    def __call__(
        self, feeds: Mapping[str, Array], rows: int, state: Mapping[str, Array] | None = None
    ) -> float:
        """Return the weight of a batch of `rows` rows."""
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
    """The name of the labels or targets beside it."""


def weight_input(plan: Plan) -> WeightInput | None:
    """Return the input of weights; None if losses take none, or different ones."""
    found: dict[str, WeightInput] = {}
    for node in plan.declared:
        weights = node.inputs[node.op.operands :] if isinstance(node.op, RowLoss) else ()
        for weight in weights:
            source = source_of(plan.declared, weight)
            if source.op.is_input:
                labels = source_of(plan.declared, node.inputs[1])
                found.setdefault(source.name, WeightInput(source.name, labels.name))
    return found.popitem()[1] if len(found) == 1 else None
