"""The base of all sources of batches, and the sources that the user's code makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from graphc.base.arguments import takes_one
from graphc.base.errors import FeedError
from graphc.runtime.executor import Executor
from graphc.runtime.means import weight_input
from graphc.runtime.rows import RowAxis, by_position

Batch = tuple[int, dict[str, Any]]
"""The number of rows, and the feeds by name of input; the next batch may overwrite them."""


class Source:
    """Batches of each epoch, in an order that depends only on the epoch's number."""

    names: frozenset[str] | None = None
    """The inputs that are fed; None if only the batches show them."""
    rows: int | None = None
    """The number of rows of an epoch; None if it is known only at the end of the epoch."""

    @property
    def unweighted(self) -> Source:
        """The source without weights that are fed beside its batches."""
        return self

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on."""
        raise NotImplementedError

    def release(self, epoch: int, start: int) -> None:
        """Free what only batches before this one need: none of those will be asked for."""

    def row(self, epoch: int, step: int, row: int) -> int | None:
        """Return the index in the data of a row of a batch; None if it is unknown."""
        return None


class FunctionSource(Source):
    """A source of batches by a function that takes the epoch's number and yields its batches."""

    def __init__(self, ex: Executor, make: Callable[[int], Iterable[Any]], train: bool) -> None:
        if not takes_one(make):
            raise FeedError(
                "the function that makes batches does not take the number of the epoch",
                hint="def batches(epoch): yield x, y",
            )
        self._ex, self._make, self._train = ex, make, train

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch; batches before `start` are made and dropped."""
        made = self._make(epoch)
        if not isinstance(made, Iterable):
            raise FeedError(
                f"the function that makes batches gave {type(made).__name__}, not batches",
                hint="def batches(epoch): yield x, y",
            )
        for number, item in enumerate(made):
            if number >= start:
                yield _as_batch(self._ex, item, self._train)


class IteratorSource(Source):
    """A source of batches from a generator; it keeps copies of those that may be needed again."""

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
                n, feeds = _as_batch(self._ex, item, self._train)
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


def _as_batch(ex: Executor, item: Any, train: bool) -> Batch:
    """Return the rows and feeds of a yielded item: a tuple by position, a mapping, or one array."""
    given = filled(ex, by_position(ex.plan.input_names, (item,), {}))
    feeds, rows = ex.rows(given, train=train)
    most = ex.plan.rows if train else ex.plan.batch
    if rows > most:
        raise FeedError(
            f"a batch of {rows} rows was yielded, the plan takes up to {most}",
            hint=f"yield smaller ones, or compile with batch={rows}",
        )
    return rows, feeds


def filled(ex: Executor, feeds: dict[str, Any]) -> dict[str, Any]:
    """Return the feeds, with weights of 1 added if a loss takes weights and there are none."""
    takes = weight_input(ex.plan)
    if takes is None or takes.name in feeds:
        return feeds
    for name, array in feeds.items():
        axis = RowAxis.of(ex.plan.declared[name].type) if name in ex.plan.input_names else None
        if axis is not None and np.ndim(array) > axis.axis:
            rows = np.shape(array)[axis.axis] // axis.factor
            one = np.ones((), ex.plan.declared[takes.name].type.dtype)
            return {**feeds, takes.name: np.broadcast_to(one, (rows,))}
    return feeds
