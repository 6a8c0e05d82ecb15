"""The callbacks that `fit` calls after each epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graphc.ir.op import Array
from graphc.runtime.executor import Executor
from graphc.train.history import History


@dataclass(frozen=True)
class Epoch:
    """A finished epoch: the executor, the history so far, and the number of steps so far.

    A callback may read and change the executor, such as `epoch.ex.hyper["lr"]`.
    """

    ex: Executor
    history: History
    steps: int

    @property
    def number(self) -> int:
        """The number of the epoch, from 1."""
        return len(self.history.epochs)

    @property
    def numbers(self) -> dict[str, float]:
        """The losses and metrics of the epoch by name."""
        return self.history.last()

    def stop(self, why: str = "a callback asked for it") -> None:
        """End training here, for the reason `why`."""
        self.history.stopped = why


class Callback:
    """An object that `fit` calls after each epoch; plain functions of an Epoch are accepted, too.

    `saved` and `begin` carry the data that a resumed run needs besides the history.
    """

    only_reads_numbers = False
    """Whether it does not touch the executor, which saves a check and a copy of the state."""

    writes_files = False
    """Whether only rank 0 runs it, if several ranks train."""

    def begin(self, history: History, saved: Mapping[str, Array]) -> None:
        """Prepare for training, or for its continuation with the epochs and arrays saved so far."""

    def __call__(self, epoch: Epoch) -> None:
        """Handle the end of an epoch."""

    def saved(self) -> Mapping[str, Array]:
        """Return arrays by name that a checkpoint keeps."""
        return {}

    def finish(self, ex: Executor) -> None:
        """Handle the end of training: all epochs are done, or a callback has stopped it."""


Called = Callable[[Epoch], Any]


def saved_arrays(callbacks: tuple[Called, ...]) -> dict[str, Array]:
    """Return the arrays of all callbacks, prefixed by the number of each callback."""
    return {
        f"{number}/{name}": array
        for number, callback in enumerate(callbacks)
        if isinstance(callback, Callback)
        for name, array in callback.saved().items()
    }


def begin(callbacks: tuple[Called, ...], history: History, arrays: Mapping[str, Array]) -> None:
    """Call `begin` of all callbacks, each with its own of the saved arrays."""
    for number, callback in enumerate(callbacks):
        if isinstance(callback, Callback):
            start = f"{number}/"
            own = {k.removeprefix(start): a for k, a in arrays.items() if k.startswith(start)}
            callback.begin(history, own)
