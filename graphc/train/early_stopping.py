"""Stop when a number has not become better for some epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from graphc.errors import GraphError
from graphc.executor import Executor
from graphc.loc import caller_loc
from graphc.op import Array
from graphc.train.batches import whole
from graphc.train.callbacks import Callback, Epoch


class EarlyStopping(Callback):
    """Stops when `watch` has not become better for `patience` epochs.

    Better is smaller by more than `least`, or with `largest` greater by more.  `watch` is
    "loss", "val_loss" or a metric.  With `restore` the executor has the state of the best epoch
    once training is over, whether it was stopped or not; a copy of that state is kept for it.

    Raises GraphError for options that make no sense.
    """

    def __init__(
        self,
        patience: int,
        *,
        watch: str = "val_loss",
        largest: bool = False,
        least: float = 0.0,
        restore: bool = True,
    ) -> None:
        if not whole(patience, 1):
            raise GraphError(
                f"EarlyStopping: patience is {patience!r}, not a whole number from 1 up",
                loc=caller_loc(),
            )
        if not (isinstance(least, (int, float, np.number)) and 0 <= least < math.inf):
            raise GraphError(
                f"EarlyStopping: least is {least!r}, not a number from 0 up", loc=caller_loc()
            )
        self.patience, self.watch, self.largest = patience, watch, largest
        self.least, self._restores = float(least), restore
        self._best: Mapping[str, Array] = {}

    def __call__(self, epoch: Epoch) -> None:
        """Keep the state of the best epoch; stop when that is too long ago."""
        values = epoch.history.column(self.watch)
        best = best_epoch(values, self.largest, self.least)
        if best == len(values) and self._restores:
            self._best = epoch.ex.snapshot()
        if len(values) - best >= self.patience:
            epoch.stop(f"{self.watch} has not become better since epoch {best}")

    def saved(self) -> Mapping[str, Array]:
        """The state of the best epoch."""
        return self._best

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Take the state of the best epoch back."""
        self._best = dict(arrays)

    def finish(self, ex: Executor) -> None:
        """Give the executor the state of the best epoch."""
        if self._best:
            ex.state = self._best


def best_epoch(values: Sequence[float], largest: bool, least: float = 0.0) -> int:
    """The number of the best epoch, from 1, the first of equals; 0 where all are NaN."""
    best, found = 0, 0.0
    for number, value in enumerate(values, 1):
        value = -value if largest else value
        if value == value and (not best or value < found - least):
            best, found = number, value
    return best
