"""A source of batches from arrays, in memory or mapped from files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from graphc.base.errors import FeedError
from graphc.base.loc import caller_loc
from graphc.compiler.loss_share import divisors
from graphc.ir.op import Array
from graphc.runtime.executor import Executor
from graphc.runtime.many_rows import by_position
from graphc.runtime.row_axis import RowAxis
from graphc.runtime.shards import rank_rows
from graphc.train.batches import Batches
from graphc.train.mapped import check_order
from graphc.train.source import Batch
from graphc.train.weights import filled


class ArraySource:
    """Batches of rows of arrays, shuffled by the seed and the epoch unless `seed` is None."""

    def __init__(
        self,
        ex: Executor,
        arrays: Mapping[str, Array],
        rows: int,
        batch: int,
        seed: int | None,
        train: bool = False,
    ) -> None:
        types = {name: ex.plan.declared[name].type for name in arrays}
        self.names, self.rows, self.arrays = frozenset(arrays), rows, arrays
        self._batches, self._seed = Batches(arrays, types, rows, batch), seed
        self._own: Callable[[int], tuple[int, int]] | None = None
        if train and ex.exchange is not None:
            self._own = partial(rank_rows, ex.plan, ex.exchange.communicator.rank)
            weighted = divisors(ex.plan.declared)
            self._batches.counting = {name for divisor in weighted for name in divisor.inputs}
        self.whole = False
        """Whether all rows of a batch are needed, not only those that this rank trains on."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on."""
        self._batches.own = None if self.whole else self._own
        if self._seed is not None:
            self._batches.shuffle(self._seed, epoch)
        return self._batches.since(start)

    def release(self, epoch: int, start: int) -> None:
        """Do nothing: arrays stay in memory."""

    def row(self, epoch: int, step: int, row: int) -> int | None:
        """Return the index in the arrays of a row of a batch of the epoch that was begun last."""
        return self._batches.place(step, row)


def checked_arrays(ex: Executor, data: Any, *, train: bool) -> tuple[dict[str, Array], int]:
    """Return arrays by input and their number of rows; arrays mapped from files are not read.

    Their numbers are checked a batch at a time.  Raise FeedError if an array does not fit.
    """
    given = filled(ex, by_position(ex.plan.input_names, (data,), {}))
    if train and not isinstance(data, Mapping):
        _check_places(ex, given)
    mapped = {name for name, array in given.items() if isinstance(array, np.memmap)}
    if not mapped:
        return ex.rows(given, train=train)
    check_order(given)
    shapes = {name: _blank(ex, name, given[name]) for name in mapped}
    found, rows = ex.rows({**given, **shapes}, train=train)
    ex.rows({name: _first_row(ex, name, array) for name, array in given.items()}, train=train)
    return {k: given[k] if k in mapped else array for k, array in found.items()}, rows


def _check_places(ex: Executor, given: Mapping[str, Any]) -> None:
    """Raise FeedError if arrays by position leave out an input that training needs."""
    program = ex.plan.programs.get("step") or ex.plan.programs.get("grad")
    needed = [name for name in ex.plan.input_names if program and name in program.feeds]
    missing = [name for name in needed if name not in given]
    if missing and given:
        shown = ", ".join(f"{name!r}: ..." for name in needed)
        raise FeedError(
            f"fit: arrays were given for {', '.join(map(repr, given))}, in the order of the "
            f"inputs, and none for {', '.join(map(repr, missing))}",
            loc=caller_loc(),
            hint=f"gc.fit(ex, ({', '.join(ex.plan.input_names)})), or gc.fit(ex, {{{shown}}})",
        )


def _first_row(ex: Executor, name: str, array: Any) -> Any:
    """Return the first row, which shows whether the dtype and the other dimensions are right."""
    axis = RowAxis.of(ex.plan.declared[name].type) if name in ex.plan.declared else None
    array = np.asarray(array)
    return array if axis is None or array.ndim <= axis.axis else axis.rows(array, 0, 1)


def _blank(ex: Executor, name: str, array: Array) -> Array:
    """Return zeros of the array's shape and the input's dtype that take no memory."""
    dtype = ex.plan.declared[name].type.dtype if name in ex.plan.declared else array.dtype
    return np.broadcast_to(np.zeros((), dtype), array.shape)
