"""The progress shown while training: a bar for people, lines of a log for files."""

from __future__ import annotations

import logging
import sys
import warnings
from types import TracebackType
from typing import Any

from graphc.train.history import History

LOG = logging.getLogger("graphc")


class Progress:
    """A bar over all rows of all epochs; or, if it is not shown, a log line for each epoch.

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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
        number, found = len(history.epochs), history.last()
        text = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
        if self._bar is None:
            LOG.info("epoch %d/%d: %s", number, self._epochs, text)
            return
        self._bar.set_description(f"epoch {number}/{self._epochs}", refresh=False)
        self._bar.set_postfix_str(text)


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
