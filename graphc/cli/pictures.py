"""`graphc train --plots`: pictures of a training run."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import numpy as np

from graphc.cli.columns import Feeds
from graphc.cli.metrics import classes_of, predicted_classes
from graphc.ir.op import Array
from graphc.runtime.executor import Executor
from graphc.train import History
from graphc.view.plots import confusion_matrix, histograms, learning_curve
from graphc.view.plots.figure import new_figure


class Pictures:
    """Pictures that compare weights and gradients before training with those after it.

    Gradients are those of as many rows as the plan takes, spread evenly over the training data.
    """

    def __init__(self, ex: Executor, train: Feeds) -> None:
        rows = len(next(iter(train.values())))
        chosen = np.unique(np.linspace(0, rows - 1, min(ex.plan.batch, rows)).astype(int))
        self._rows = {name: array[chosen] for name, array in train.items()}
        self._weights = dict(ex.parameters)
        self._gradients = _gradients(ex, self._rows)

    def draw(self, out: Path, history: History, ex: Executor, judged: Feeds) -> Iterator[Path]:
        """Draw all pictures and yield their paths; the confusion matrix is that of `judged`."""
        yield learning_curve(history, out / "learning_curve.png")
        classes = classes_of(ex.plan.declared)
        if classes is not None:
            found = predicted_classes(ex, judged, classes)
            path = out / "confusion_matrix.png"
            yield confusion_matrix(judged[classes.labels], found, path, classes=classes.count)
        yield histograms(ex.parameters, out / "weights.png", before=self._weights)
        gradients = _gradients(ex, self._rows)
        path = out / "gradients.png"
        yield histograms(gradients, path, before=self._gradients, magnitudes=True)


def check_matplotlib() -> None:
    """Raise GraphError if pictures could not be drawn at the end."""
    new_figure("each of the --plots", 1, 1)


def _gradients(ex: Executor, rows: Feeds) -> dict[str, Array]:
    """Return the gradients of these rows; masks and running statistics of `ex` do not change."""
    twin = deepcopy(ex)
    twin.forward(rows, train=True)
    return twin.backward()
