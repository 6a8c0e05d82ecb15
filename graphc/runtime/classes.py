"""The classes that a net predicts: the output that scores them, and the input of their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ir.tensor_type import dim_at
from graphc.ops.functions import LogSoftmax
from graphc.ops.losses.classes import NllLoss, SoftmaxLoss, SvmLoss
from graphc.runtime.executor import Executor


@dataclass(frozen=True)
class Classes:
    """The output that scores classes, the input that holds labels, and the number of classes.

    `by_softmax` says that softmax makes probabilities of the scores.
    """

    scores: str
    labels: str
    count: int
    by_softmax: bool


def classes_of(graph: Graph) -> Classes | None:
    """Return the classes of a loss that compares output scores with fed labels, or None."""
    public = {value: name for name, value in graph.outputs.items()}
    for node in graph:
        plain = isinstance(node.op, NllLoss) and node.op.ignore is None
        if plain or isinstance(node.op, (SoftmaxLoss, SvmLoss)):
            scores, labels = node.inputs[:2]
            if isinstance(graph[scores].op, LogSoftmax):
                scores = graph[scores].inputs[0]
            if scores in public and graph[labels].op.is_input:
                count = dim_at(graph[scores].type.shape[-1], 1)
                by_softmax = not isinstance(node.op, SvmLoss)
                return Classes(public[scores], labels, count, by_softmax)
    return None


def predicted_classes(ex: Executor, feeds: Mapping[str, Any], classes: Classes) -> Array:
    """Return the class with the largest score of each row."""
    inputs = {name: array for name, array in feeds.items() if name != classes.labels}
    predicted = ex.predict(inputs)
    array: Array = predicted[classes.scores] if isinstance(predicted, dict) else predicted
    found: Array = array.argmax(axis=1)
    return found
