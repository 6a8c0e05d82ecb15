"""Sources of batches that the user's code makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from graphc.base.arguments import takes_one
from graphc.base.errors import FeedError
from graphc.base.loc import caller_loc
from graphc.runtime.executor import Executor
from graphc.runtime.many_rows import by_position
from graphc.train.source import Batch
from graphc.train.weights import filled


class FunctionSource:
    """A source of batches by a function that takes the epoch's number and yields its batches."""

    names: frozenset[str] | None = None
    rows: int | None = None

    def __init__(self, ex: Executor, make: Callable[[int], Iterable[Any]], train: bool) -> None:
        if not takes_one(make):
            raise FeedError(
                "the function that makes batches does not take the number of the epoch",
                loc=caller_loc(),
                hint="def batches(epoch): yield x, y",
            )
        self._ex, self._make, self._train = ex, make, train

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch; batches before `start` are made and dropped."""
        made = self._make(epoch)
        if not isinstance(made, Iterable):
            raise FeedError(
                f"the function that makes batches gave {type(made).__name__}, not batches",
                loc=caller_loc(),
                hint="def batches(epoch): yield x, y",
            )
        for number, item in enumerate(made):
            if number >= start:
                yield as_batch(self._ex, item, self._train)

    def release(self, epoch: int, start: int) -> None:
        """Do nothing: the function can be called again."""

    def row(self, epoch: int, step: int, row: int) -> int | None:
        """Return None: the index is unknown."""
        return None


class IteratorSource:
    """A source of batches from a generator; it keeps copies of those that may be needed again."""

    names: frozenset[str] | None = None
    rows: int | None = None

    def __init__(self, ex: Executor, items: Iterator[Any], train: bool) -> None:
        self._ex, self._items, self._train = ex, items, train
        self._kept: list[Batch] = []
        self._first = 0
        """The number of the oldest batch that is kept."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield kept batches, then new ones; batches before `start` are dropped."""
        number = self._first
        while True:
            if number < self._first + len(self._kept):
                batch = self._kept[number - self._first]
            else:
                try:
                    item = next(self._items)
                except StopIteration:
                    return
                n, feeds = as_batch(self._ex, item, self._train)
                batch = n, {name: np.array(array) for name, array in feeds.items()}
                self._kept.append(batch)
            if number >= start:
                yield batch
            number += 1

    def release(self, epoch: int, start: int) -> None:
        """Delete the copies of earlier batches."""
        drop = max(0, min(start - self._first, len(self._kept)))
        del self._kept[:drop]
        self._first += drop

    def row(self, epoch: int, step: int, row: int) -> int | None:
        """Return None: the index is unknown."""
        return None


def as_batch(ex: Executor, item: Any, train: bool) -> Batch:
    """Return the rows and feeds of a yielded item: a tuple by position, a mapping, or one array."""
    given = filled(ex, by_position(ex.plan.input_names, (item,), {}))
    feeds, rows = ex.rows(given, train=train)
    most = ex.plan.rows if train else ex.plan.batch
    if rows > most:
        raise FeedError(
            f"a batch of {rows} rows was yielded, the plan takes up to {most}",
            loc=caller_loc(),
            hint=f"yield smaller ones, or compile with batch={rows}",
        )
    return rows, feeds
