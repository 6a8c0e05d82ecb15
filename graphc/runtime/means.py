"""Means over all rows of what is computed batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from graphc.graph import Graph, Node
from graphc.op import Array
from graphc.ops.losses.row_loss import RowLoss
from graphc.ops.shape import Reshape
from graphc.ops.source import Constant, Input
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
        self._share, self._losses = Share.of(plan), plan.losses
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
        return Numbers(rows, self._share(feeds, rows), scalars)

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


def weight_input(plan: Plan) -> WeightInput | None:
    """The input of weights; None where losses take none, or not the same."""
    found: dict[str, WeightInput] = {}
    for node, loss in _losses(plan.declared):
        for weight in node.inputs[loss.operands :]:
            source = _source(plan.declared, weight)
            if isinstance(source.op, Input):
                labels = _source(plan.declared, node.inputs[1])
                found.setdefault(source.name, WeightInput(source.name, labels.name))
    return found.popitem()[1] if len(found) == 1 else None


class Share(NamedTuple):
    """What the loss of a batch counts in the mean over batches: what its own mean is divided by.

    It is the number of rows where losses are no means by weights, or by other ones each.
    """

    loss: RowLoss | None = None
    """The loss that says what a row counts; None where it is 1."""
    counts_by: tuple[Node, ...] = ()
    """The inputs and constants that the counts are made from."""
    weight: str | None = None
    """The input of weights."""

    @classmethod
    def of(cls, plan: Plan) -> Share:
        """By the losses of a plan."""
        losses = [
            (node, loss)
            for node, loss in _losses(plan.declared)
            if loss.counts_by or len(node.inputs) > loss.operands
        ]
        if any(loss.reduction != "mean" for _, loss in losses):
            return cls()
        found = {cls._of(plan.declared, node, loss) for node, loss in losses}
        return found.pop() if len(found) == 1 else cls()

    @classmethod
    def _of(cls, graph: Graph, node: Node, loss: RowLoss) -> Share:
        sources = [_source(graph, name) for name in node.inputs]
        counts_by = tuple(sources[i] for i in loss.counts_by)
        weights = sources[loss.operands :]
        known = all(isinstance(source.op, (Input, Constant)) for source in counts_by)
        if not known or not all(isinstance(source.op, Input) for source in weights):
            return cls()
        return cls(loss if counts_by else None, counts_by, weights[0].name if weights else None)

    def __call__(self, feeds: Mapping[str, Array], rows: int) -> float:
        """Of a batch of so many rows."""
        inputs = [node.name for node in self.counts_by if isinstance(node.op, Input)]
        inputs += [] if self.weight is None else [self.weight]
        if not inputs or any(name not in feeds for name in inputs):
            return rows
        counts = self._counts(feeds)
        if self.weight is None:
            return float(counts.sum())
        return float((counts * np.asarray(feeds[self.weight]).reshape(-1)).sum())

    def _counts(self, feeds: Mapping[str, Array]) -> Array:
        if self.loss is None:
            return np.ones(())
        arrays = [
            node.op.array() if isinstance(node.op, Constant) else np.asarray(feeds[node.name])
            for node in self.counts_by
        ]
        return self.loss.reference_counts([array.reshape(-1) for array in arrays])


def _losses(graph: Graph) -> Iterator[tuple[Node, RowLoss]]:
    for node in graph:
        if isinstance(node.op, RowLoss):
            yield node, node.op


def _source(graph: Graph, name: str) -> Node:
    """The node whose numbers these are, in another shape perhaps."""
    while isinstance(graph[name].op, Reshape):
        name = graph[name].inputs[0]
    return graph[name]
