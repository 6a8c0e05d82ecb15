"""What is called after each epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graphc.executor import Executor
from graphc.op import Array
from graphc.train.history import History


@dataclass(frozen=True)
class Epoch:
    """An epoch that has ended: the executor, what happened so far, and how many steps that was.

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
        """Let training end here."""
        self.history.stopped = why


class Callback:
    """An object that `fit` calls after each epoch; plain functions of an Epoch serve, too.

    `saved` and `begin` are for what a resumed run has to know beside the history.
    """

    only_reads_numbers = False
    """Whether it leaves the executor alone, which saves a check and a copy of the state."""

    writes_files = False
    """Whether rank 0 alone runs it, where several ranks train."""

    def begin(self, history: History, saved: Mapping[str, Array]) -> None:
        """Training begins; or it is resumed, with the epochs so far and the arrays `saved`."""

    def __call__(self, epoch: Epoch) -> None:
        """An epoch has ended."""

    def saved(self) -> Mapping[str, Array]:
        """Arrays by name that a checkpoint keeps."""
        return {}

    def finish(self, ex: Executor) -> None:
        """Training is over: all epochs are done, or a callback has stopped it."""


Called = Callable[[Epoch], Any]


def saved_arrays(callbacks: tuple[Called, ...]) -> dict[str, Array]:
    """The arrays of all callbacks, under the number of each."""
    return {
        f"{number}/{name}": array
        for number, callback in enumerate(callbacks)
        if isinstance(callback, Callback)
        for name, array in callback.saved().items()
    }


def begin(callbacks: tuple[Called, ...], history: History, arrays: Mapping[str, Array]) -> None:
    """Tell all callbacks that training begins, each with its own of the saved arrays."""
    for number, callback in enumerate(callbacks):
        if isinstance(callback, Callback):
            start = f"{number}/"
            own = {k.removeprefix(start): a for k, a in arrays.items() if k.startswith(start)}
            callback.begin(history, own)
