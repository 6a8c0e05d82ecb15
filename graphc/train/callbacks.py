"""The callbacks that `fit` calls after each epoch: the base class, early stopping, and logs."""

from __future__ import annotations

import csv
import io
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphc.base.arguments import checked_whole, takes
from graphc.base.errors import DataError, GraphError
from graphc.files.disk import cannot_write, make_folder, write_atomically
from graphc.files.graph_file import tensors_named
from graphc.ir.op import Array
from graphc.runtime.executor import Executor
from graphc.train.history import Best, History


@dataclass(frozen=True)
class Epoch:
    """A finished epoch, which callbacks get.

    Parameters
    ----------
    ex
        The executor, which a callback may read and change.
    history
        The numbers of the epochs so far.
    steps
        The number of steps so far.

    Examples
    --------
    >>> def halve_rate(epoch: gc.Epoch) -> None:
    ...     if epoch.number % 10 == 0:
    ...         epoch.ex.hyper["lr"] *= 0.5
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
        """End training here.

        Parameters
        ----------
        why
            The reason, which the history keeps.
        """
        self.history.stopped = why


class Callback:
    """An object that `fit` calls after each epoch; plain functions of an Epoch are accepted, too.

    `saved` and `begin` carry the data that a resumed run needs besides the history.

    Examples
    --------
    >>> class Print(gc.Callback):
    ...     only_reads_numbers = True
    ...
    ...     def __call__(self, epoch):
    ...         print(epoch.number, epoch.numbers)
    """

    only_reads_numbers = False
    """True if it does not touch the executor; this saves a check and a copy of the state."""

    writes_files = False
    """True if only rank 0 runs it when several ranks train."""

    def begin(self, history: History, saved: Mapping[str, Array]) -> None:
        """Prepare for training, or for its continuation.

        Parameters
        ----------
        history
            The epochs so far.
        saved
            The arrays that `saved` returned for the checkpoint; empty for a new run.
        """

    def __call__(self, epoch: Epoch) -> None:
        """Handle the end of an epoch."""

    def saved(self) -> Mapping[str, Array]:
        """Return what a checkpoint keeps.

        Returns
        -------
        Mapping
            Arrays by name.
        """
        return {}

    def finish(self, ex: Executor) -> None:
        """Handle the end of training: all epochs are done, or a callback has stopped it.

        Parameters
        ----------
        ex
            The executor.
        """


class Function(Callback):
    """A plain function of an Epoch as a callback."""

    def __init__(self, function: Callable[[Epoch], Any]) -> None:
        self._function = function

    def __call__(self, epoch: Epoch) -> None:
        """Call the wrapped function with the epoch."""
        self._function(epoch)


def saved_arrays(callbacks: tuple[Callback, ...]) -> dict[str, Array]:
    """Return the arrays of all callbacks, prefixed by the number of each callback."""
    return {
        f"{number}/{name}": array
        for number, callback in enumerate(callbacks)
        for name, array in callback.saved().items()
    }


def begin(callbacks: tuple[Callback, ...], history: History, arrays: Mapping[str, Array]) -> None:
    """Call `begin` of all callbacks, each with its own saved arrays."""
    for number, callback in enumerate(callbacks):
        callback.begin(history, tensors_named(arrays, f"{number}/"))


class EarlyStopping(Callback):
    """A callback that ends training when a number has stopped improving.

    Parameters
    ----------
    patience
        The number of epochs in a row without a better number.
    watch
        "loss", "val_loss" or a metric.
    largest
        Whether greater numbers are better.
    least
        The least difference that counts as better.
    restore
        Whether the executor gets the state of the best epoch at the end, stopped or not.  A copy
        of that state is kept.

    Raises
    ------
    GraphError
        If an option is out of range.

    Examples
    --------
    >>> stopping = gc.EarlyStopping(patience=5, watch="accuracy", largest=True)
    >>> stopping.patience
    5
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
            raise GraphError(f"EarlyStopping: least is {least!r}, not a number from 0 up")
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


class CsvLog(Callback):
    """A callback that writes a table with the columns epoch, losses, metrics and seconds.

    Each epoch adds a line; a resumed run first writes the lines of the earlier epochs, so that
    no line is repeated or cut.

    Parameters
    ----------
    path
        The `.csv` file.

    Raises
    ------
    DataError
        If the file cannot be written.

    Examples
    --------
    >>> gc.CsvLog("run.csv").path.name
    'run.csv'
    """

    only_reads_numbers = True
    writes_files = True

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.begin(History(), {})

    def begin(self, history: History, saved: Mapping[str, Array]) -> None:
        """Let the next epoch write the whole file, the lines of an earlier run included."""
        self._whole = False

    def __call__(self, epoch: Epoch) -> None:
        """Append the numbers of the epoch to the file as a line."""
        history = epoch.history
        try:
            if self._whole:
                with open(self.path, "a", encoding="utf-8", newline="") as file:
                    file.write(_lines(history, epoch.number - 1))
            else:
                header = _row(["epoch", *history.last(), "seconds"])
                write_atomically(self.path, [(header + _lines(history, 0)).encode()])
        except OSError as error:
            raise cannot_write(self.path, error, DataError) from error
        self._whole = True


def _lines(history: History, start: int) -> str:
    """Return the lines of epochs from index `start` on; Python reads the numbers back exactly."""
    numbers = map(history.column, history.last())
    columns: list[Sequence[float]] = [history.epochs, *numbers, history.seconds]
    return "".join(_row([c[i] for c in columns]) for i in range(start, len(history.epochs)))


def _row(cells: Sequence[object]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(cells)
    return text.getvalue()


class TensorBoardLog(Callback):
    """A callback that writes losses and metrics by epoch for `tensorboard --logdir`.

    A resumed run withdraws the numbers of the epochs that it repeats.

    Parameters
    ----------
    folder
        The folder to write into.

    Raises
    ------
    GraphError
        If tensorboardX is missing.
    DataError
        If the folder cannot be written.

    Examples
    --------
    >>> gc.TensorBoardLog("logs").folder.name  # doctest: +SKIP
    'logs'
    """

    only_reads_numbers = True
    writes_files = True

    def __init__(self, folder: str | Path) -> None:
        try:
            import tensorboardX  # noqa: F401
        except ImportError:
            raise GraphError(
                "a log for TensorBoard is written by tensorboardX, which is not installed",
                hint="pip install 'graphc-nn[tensorboard]'",
            ) from None
        self.folder = Path(folder)
        self._events: Any = None

    def __call__(self, epoch: Epoch) -> None:
        """Write the numbers of the epoch and flush the file: a run may end at any time."""
        try:
            self._write(epoch)
        except OSError as error:
            with suppress(OSError):
                self._close()
            raise cannot_write(self.folder, error, DataError) from error

    def _write(self, epoch: Epoch) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        if self._events is None:
            self._events = self._opened(epoch.number)
        now = time.time()
        for name, value in epoch.numbers.items():
            event = Event(wall_time=now, step=epoch.number, summary=scalar(name, value))
            self._events.write_event(event)
        self._events.flush()

    def _opened(self, first: int) -> Any:
        """Open and return a new file that withdraws earlier files' epochs from `first` on."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        make_folder(self.folder, DataError)
        # Files are named by the second, which a run and its successor may share.
        events = EventsWriter(str(self.folder / "events"), f".{first:09d}.{os.getpid()}")
        if first > 1:
            start = SessionLog(status=SessionLog.START)
            events.write_event(Event(wall_time=time.time(), step=first, session_log=start))
        return events

    def finish(self, ex: Executor) -> None:
        """Close the file."""
        try:
            self._close()
        except OSError as error:
            raise cannot_write(self.folder, error, DataError) from error

    def _close(self) -> None:
        events, self._events = self._events, None
        if events is not None:
            events.close()
