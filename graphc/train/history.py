"""The progress of a run: the numbers of each epoch, the position, and the bar that shows it."""

from __future__ import annotations

import logging
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add, mul
from pathlib import Path
from typing import Any

from graphc.base.docstrings import with_shared
from graphc.base.door import higher
from graphc.base.text_table import aligned

LOG = logging.getLogger("graphc")


@dataclass
class History:
    """The numbers of training: lists with one entry per epoch.

    Parameters
    ----------
    epochs
        The numbers of the epochs, from 1.
    loss
        The mean over the rows while the weights changed, masks included.
    val_loss, metrics
        The loss and the other scalar outputs of the validation data after the epoch; empty without
        validation data.  If a loss is a mean by weights of rows, so is the mean over batches.
    seconds
        The time of an epoch and its validation.
    stopped
        The reason why training ended before its last epoch, or "".

    Examples
    --------
    >>> history = gc.History()
    >>> history.add(loss=0.5, seconds=1.0, val_loss=0.75, metrics={"accuracy": 0.5})
    >>> history.last()
    {'loss': 0.5, 'val_loss': 0.75, 'accuracy': 0.5}
    """

    epochs: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    stopped: str = ""

    def add(
        self, loss: float, seconds: float, val_loss: float | None, metrics: dict[str, float]
    ) -> None:
        """Add the numbers of an epoch.

        Parameters
        ----------
        loss, seconds
            The loss of the training data, and the time.
        val_loss, metrics
            The numbers of the validation data; None and empty without.
        """
        self.epochs.append(len(self.epochs) + 1)
        self.loss.append(loss)
        self.seconds.append(seconds)
        if val_loss is not None:
            self.val_loss.append(val_loss)
        for name, value in metrics.items():
            self.metrics.setdefault(name, []).append(value)

    def last(self) -> dict[str, float]:
        """Return the numbers of the last epoch.

        Returns
        -------
        dict
            The numbers by name, without the time.
        """
        return {name: values[-1] for name, values in self._columns() if values}

    def column(self, name: str) -> list[float]:
        """Return the numbers of one name.

        Parameters
        ----------
        name
            "loss", "val_loss" or a metric.

        Returns
        -------
        list
            A number for each epoch.

        Raises
        ------
        KeyError
            If there are no numbers of that name.
        """
        return dict(self._columns())[name]

    def plot(self, path: str | Path) -> Path:
        """Draw the learning curve.

        Parameters
        ----------
        path
            The file to write, in the format of its suffix, or PNG without one.

        Returns
        -------
        Path
            The path of the file.

        Raises
        ------
        GraphError
            If matplotlib is missing or does not draw that format.
        """
        drawn: Path = higher("History.plot")(self, path)
        return drawn

    def __str__(self) -> str:
        columns = [("epoch", [str(epoch) for epoch in self.epochs])]
        columns.extend((name, [_number(v) for v in values]) for name, values in self._columns())
        columns.append(("seconds", [f"{value:.2f}" for value in self.seconds]))
        return columns_text(columns)

    def _columns(self) -> Iterator[tuple[str, list[float]]]:
        yield "loss", self.loss
        if self.val_loss:
            yield "val_loss", self.val_loss
        yield from self.metrics.items()


class Histories(list[History]):
    """The histories of the members of a population, as `gc.fit` returns them.

    Parameters
    ----------
    iterable
        The histories, in the order of the members.

    Examples
    --------
    >>> histories = gc.Histories([gc.History(loss=[0.5]), gc.History(loss=[0.25])])
    >>> histories.best()
    1
    """

    def best(self, watch: str = "", largest: bool = False) -> int:
        """Return the number of the member whose best epoch is the best.

        Parameters
        ----------
        watch
            "loss", "val_loss" or a metric; by default the loss of validation data if there are any.
        largest
            Whether greater numbers are better.

        Returns
        -------
        int
            The first of the best members.
        """
        watch = watch or self._watched()
        best, found = Best(largest), 0
        for number, history in enumerate(self):
            for value in history.column(watch) if watch in history.last() else ():
                found = number if best.add(value) else found
        return found

    @with_shared(History.plot.__doc__)
    def plot(self, path: str | Path) -> Path:
        """Draw the learning curves of all members."""
        drawn: Path = higher("History.plot")(self, path)
        return drawn

    def __str__(self) -> str:
        names = list(dict.fromkeys(name for history in self for name in history.last()))
        columns = [("member", [str(number) for number in range(len(self))])]
        columns.append(("epochs", [str(len(history.epochs)) for history in self]))
        for name in names:
            cells = (history.last().get(name) for history in self)
            columns.append((name, ["" if c is None else _number(c) for c in cells]))
        return columns_text(columns)

    def _watched(self) -> str:
        return "val_loss" if any(history.val_loss for history in self) else "loss"


def columns_text(columns: list[tuple[str, list[str]]]) -> str:
    """Return columns, each with its name, as lines of text."""
    rows = zip(*([name, *cells] for name, cells in columns), strict=True)
    return "\n".join(aligned(rows, ">" * len(columns)))


def _number(value: float) -> str:
    """Return a number with four digits after the point, or in scientific notation."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.3e}"


@dataclass
class Position:
    """The next step of a run, and the sums over its epoch so far."""

    epoch: int = 1
    step: int = 0
    """The number of steps of the epoch that are done."""
    steps: int = 0
    """The number of steps of all epochs that are done."""
    rows: int = 0
    """The number of rows of the epoch that were trained on."""
    total: float = 0.0
    """The sum of the losses of the epoch, each times its share."""
    shares: float = 0.0
    """The sum of the shares, which are the weights of the losses in the mean."""
    seconds: float = 0.0
    """The seconds that the epoch has taken so far."""

    @property
    def loss(self) -> float:
        """The mean loss of the rows of the epoch so far."""
        return self.total / self.shares

    def count(self, rows: int, loss: float, share: float) -> None:
        """Count a finished step whose loss has the weight `share` in the mean."""
        self.total += share * loss
        self.shares += share
        self.rows += rows
        self.step += 1
        self.steps += 1

    def count_all(
        self, rows: Sequence[int], losses: Sequence[float], shares: Sequence[float]
    ) -> None:
        """Count finished steps as if one after the other, with the same bits."""
        self.total = reduce(add, map(mul, shares, losses), self.total)
        self.shares = reduce(add, shares, self.shares)
        self.rows += sum(rows)
        self.step += len(losses)
        self.steps += len(losses)

    def next_epoch(self) -> None:
        """Move to the start of the next epoch."""
        self.epoch += 1
        self.step, self.rows, self.total, self.shares, self.seconds = 0, 0, 0.0, 0.0, 0.0


class Best:
    """The best number of a column so far; smaller is better, or with `largest`, larger is.

    The best is the first of equals, and never NaN.
    """

    def __init__(self, largest: bool = False, least: float = 0.0) -> None:
        self._sign, self._least = -1.0 if largest else 1.0, least
        self._best = math.inf
        self.waited = 0
        """The number of epochs since one better than all before it by more than `least`."""

    def add(self, value: float) -> bool:
        """Add the number of the next epoch and return whether it is the best so far."""
        value *= self._sign
        self.waited = 0 if value < self._best - self._least else self.waited + 1
        best = value < self._best
        if best:
            self._best = value
        return best


class Progress:
    """A progress bar over all rows of all epochs; without a bar, a log line for each epoch.

    With `shown` None it is shown in a terminal or a notebook.  `rows` is the number of rows of an
    epoch if it is known, `done` the number that were trained on in an earlier run.
    """

    def __init__(
        self, shown: bool | None, epochs: int, rows: int | None, epoch: int = 1, done: int = 0
    ) -> None:
        self._epochs = epochs
        self._bar: Any = None
        if _watched() if shown is None else shown:
            total = None if rows is None else epochs * rows
            done += 0 if rows is None else (epoch - 1) * rows
            self._bar = _bar()(total=total, initial=done, unit="row", unit_scale=True)
            self._bar.set_description(f"epoch {min(epoch, epochs)}/{epochs}", refresh=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def rows(self, count: int) -> None:
        """Advance the bar by `count` rows."""
        if self._bar is not None:
            self._bar.update(count)

    def epoch(self, history: History) -> None:
        """Show or log the numbers of a finished epoch."""
        if self._bar is None and not LOG.isEnabledFor(logging.INFO):
            return
        text = epoch_text(history, self._epochs)
        if self._bar is None:
            LOG.info(text)
            return
        number, _, numbers = text.partition(": ")
        self._bar.set_description(number, refresh=False)
        self._bar.set_postfix_str(numbers)


def epoch_text(history: History, epochs: int) -> str:
    """Return a line with the numbers of the last epoch."""
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in history.last().items())
    return f"epoch {len(history.epochs)}/{epochs}: {numbers}"


def _bar() -> Any:
    """Return the bar of notebooks if ipywidgets can show it, else that of terminals."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        from tqdm.auto import tqdm
    return tqdm


def _watched() -> bool:
    """Return whether standard error is a terminal, or this is a notebook."""
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None else None
    if getattr(running, "kernel", None) is not None:
        return True
    return sys.stderr is not None and sys.stderr.isatty()
