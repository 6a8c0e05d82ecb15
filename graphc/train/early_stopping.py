"""Early stopping: end training when a number has not become better for some epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from graphc.base.arguments import takes
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.numbers import checked_whole
from graphc.ir.op import Array
from graphc.runtime.executor import Executor
from graphc.train.best import Best
from graphc.train.callbacks import Callback, Epoch
from graphc.train.history import History


class EarlyStopping(Callback):
    """Stops when `watch` was not better than its best before for `patience` epochs in a row.

    Better is smaller by more than `least`, or with `largest` greater by more.  `watch` is
    "loss", "val_loss" or a metric.  With `restore` the executor has the state of the best epoch
    once training is over, whether it was stopped or not; a copy of that state is kept for it.

    Raise GraphError for options that make no sense.
    """

    @takes(
        "gc.EarlyStopping(patience=5)",
        monitor="it is watch",
        mode="largest=True is for numbers where larger is better",
        min_delta="it is least",
        restore_best_weights="it is restore",
    )
    def __init__(
        self,
        patience: int,
        *,
        watch: str = "val_loss",
        largest: bool = False,
        least: float = 0.0,
        restore: bool = True,
    ) -> None:
        self.patience = checked_whole("EarlyStopping: patience", patience)
        if not (isinstance(least, (int, float, np.number)) and 0 <= least < math.inf):
            raise GraphError(
                f"EarlyStopping: least is {least!r}, not a number from 0 up", loc=caller_loc()
            )
        self.watch, self.largest = watch, largest
        self.least, self.restore = float(least), restore
        self.only_reads_numbers = not restore
        self.begin(History(), {})

    def begin(self, history: History, saved: Mapping[str, Array]) -> None:
        """Restore the numbers and the best state of the epochs before."""
        self._numbers, self._state = Best(self.largest, self.least), saved
        for value in history.column(self.watch) if self.watch in history.last() else ():
            self._numbers.add(value)

    def __call__(self, epoch: Epoch) -> None:
        """Keep the state of the best epoch; stop if there has been none for `patience` epochs."""
        if self._numbers.add(epoch.numbers[self.watch]) and self.restore:
            self._state = epoch.ex.snapshot()
        waited = self._numbers.waited
        if waited >= self.patience:
            epoch.stop(f"{self.watch} has not improved since epoch {epoch.number - waited}")

    def saved(self) -> Mapping[str, Array]:
        """Return the state of the best epoch."""
        return self._state

    def finish(self, ex: Executor) -> None:
        """Set the executor to the state of the best epoch."""
        if self._state:
            ex.state = self._state
