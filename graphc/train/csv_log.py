"""The history as a table in a file, one line per epoch."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from graphc.base.errors import DataError
from graphc.files.writing import cannot_write, write_atomically
from graphc.ir.op import Array
from graphc.train.callbacks import Callback, Epoch
from graphc.train.history import History


class CsvLog(Callback):
    """Writes `path` with the columns epoch, losses, metrics and seconds.

    Each epoch adds a line; a resumed run first writes the lines of the earlier epochs, so that
    no line is repeated or cut.  Raise DataError if the file cannot be written.
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
        """Add the line of the epoch."""
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
