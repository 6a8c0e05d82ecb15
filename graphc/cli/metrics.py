"""How good a model is on some data."""

from __future__ import annotations

import numpy as np

from graphc.cli.data import Feeds
from graphc.executor import Executor
from graphc.ops.loss import SoftmaxLoss, SvmLoss


def metrics(ex: Executor, feeds: Feeds) -> dict[str, float]:
    """The losses by name, and `accuracy` where a loss compares scores with fed labels."""
    found = ex.evaluate(feeds)
    for node in ex.plan.declared:
        if isinstance(node.op, (SoftmaxLoss, SvmLoss)):
            scores, labels = node.inputs[:2]
            public = {value: name for name, value in ex.plan.declared.outputs.items()}
            if scores in public and labels in feeds:
                found["accuracy"] = accuracy(ex, feeds, public[scores], labels)
                break
    return found


def accuracy(ex: Executor, feeds: Feeds, scores: str, labels: str) -> float:
    """The share of rows whose largest score is their label's."""
    inputs = {name: array for name, array in feeds.items() if name != labels}
    predicted = ex.predict(inputs)
    array = predicted[scores] if isinstance(predicted, dict) else predicted
    return float(np.mean(array.argmax(axis=1) == feeds[labels]))
