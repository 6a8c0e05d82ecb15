"""The metrics of a model on some data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphc.cli.columns import Feeds
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ir.tensor_type import dim_at
from graphc.ops.functions import LogSoftmax
from graphc.ops.losses.margin import SvmLoss
from graphc.ops.losses.nll import NllLoss
from graphc.ops.losses.softmax import SoftmaxLoss
from graphc.ops.source import Input
from graphc.runtime.executor import Executor


@dataclass(frozen=True)
class Classes:
    """The output that scores classes, the input that holds labels, and the number of classes."""

    scores: str
    labels: str
    count: int


def classes_of(graph: Graph) -> Classes | None:
    """Return the classes of a loss that compares output scores with fed labels, or None."""
    public = {value: name for name, value in graph.outputs.items()}
    for node in graph:
        plain = isinstance(node.op, NllLoss) and node.op.ignore is None
        if plain or isinstance(node.op, (SoftmaxLoss, SvmLoss)):
            scores, labels = node.inputs[:2]
            if isinstance(graph[scores].op, LogSoftmax):
                scores = graph[scores].inputs[0]
            if scores in public and isinstance(graph[labels].op, Input):
                return Classes(public[scores], labels, dim_at(graph[scores].type.shape[-1], 1))
    return None


def metrics(ex: Executor, feeds: Feeds) -> dict[str, float]:
    """Return the losses by name, and `accuracy` if a loss compares scores with fed labels."""
    found = ex.evaluate(feeds)
    classes = classes_of(ex.plan.declared)
    if classes is not None:
        found["accuracy"] = accuracy(ex, feeds, classes)
    return found


def predicted_classes(ex: Executor, feeds: Feeds, classes: Classes) -> Array:
    """Return the class with the largest score of each row."""
    inputs = {name: array for name, array in feeds.items() if name != classes.labels}
    predicted = ex.predict(inputs)
    array: Array = predicted[classes.scores] if isinstance(predicted, dict) else predicted
    found: Array = array.argmax(axis=1)
    return found


def accuracy(ex: Executor, feeds: Feeds, classes: Classes) -> float:
    """Return the share of rows whose largest score is that of their label."""
    return float(np.mean(predicted_classes(ex, feeds, classes) == feeds[classes.labels]))
