"""Means over all rows of what is computed batch by batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, cast

from graphc.op import Array
from graphc.ops.loss import RowLoss
from graphc.ops.source import Input
from graphc.plan import Plan


class Numbers(NamedTuple):
    """What counts of a batch: its rows, its share in the losses, and its scalar outputs."""

    rows: int
    share: float
    scalars: Mapping[str, float]


class Means:
    """The scalar outputs of batches, as means over the rows of all.

    A metric counts by the rows of its batch, a loss that is a weighted mean by their weights, so
    that it does not depend on how the rows were cut into batches.
    """

    def __init__(self, plan: Plan) -> None:
        self._weight, self._losses = mean_weight(plan), plan.losses
        self._totals: dict[str, float] = {}
        self.rows, self._shares = 0, 0.0

    def add(self, rows: int, feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Take the outputs of inference on a batch."""
        self.add_numbers(self.numbers(rows, feeds, outputs))

    def numbers(
        self, rows: int, feeds: Mapping[str, Array], outputs: Mapping[str, Array]
    ) -> Numbers:
        """What is taken of the outputs of a batch."""
        scalars = {name: float(array) for name, array in outputs.items() if array.ndim == 0}
        return Numbers(rows, share(self._weight, feeds, rows), scalars)

    def add_numbers(self, batch: Numbers) -> None:
        """Take what was found on a batch."""
        self.rows += batch.rows
        self._shares += batch.share
        for name, value in batch.scalars.items():
            count = batch.share if name in self._losses else batch.rows
            total = self._totals.get(name, 0.0)
            self._totals[name] = total + count * value if count else total

    def found(self) -> dict[str, float]:
        """The mean of each by name; NaN where all weights were 0."""
        counts = {k: self._shares if k in self._losses else self.rows for k in self._totals}
        return {k: v / counts[k] if counts[k] else math.nan for k, v in self._totals.items()}


class WeightInput(NamedTuple):
    """The one input that losses take as `weight=`."""

    name: str
    labels: str
    """The labels or targets beside it."""
    mean: bool
    """Whether all these losses are means by the weights."""


def weight_input(plan: Plan) -> WeightInput | None:
    """The input of weights; None where losses take none, or not the same."""
    graph = plan.declared
    losses = [node for node in graph if isinstance(node.op, RowLoss) and len(node.inputs) == 3]
    losses = [node for node in losses if isinstance(graph[node.inputs[2]].op, Input)]
    if len({node.inputs[2] for node in losses}) != 1:
        return None
    mean = all(cast(RowLoss, node.op).reduction == "mean" for node in losses)
    return WeightInput(losses[0].inputs[2], losses[0].inputs[1], mean)


def mean_weight(plan: Plan) -> str | None:
    """The input by whose sums the losses of batches are averaged; None where rows are counted."""
    found = weight_input(plan)
    return found.name if found is not None and found.mean else None


def share(weight: str | None, feeds: Mapping[str, Array], rows: int) -> float:
    """What the loss of a batch counts in the mean over batches."""
    return rows if weight is None or weight not in feeds else float(feeds[weight].sum())
