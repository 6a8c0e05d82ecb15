"""Keeps a copy of the state, to run the steps again that led to a number that is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from math import isfinite

import numpy as np

from graphc.base.errors import NotFiniteError
from graphc.ir.op import Array
from graphc.runtime.executor import Executor
from graphc.runtime.run_all import run_all
from graphc.train.arrays import ArraySource
from graphc.train.nonfinite.told import found, not_again
from graphc.train.nonfinite.trace import traced
from graphc.train.position import Position
from graphc.train.record.identity import unwrapped
from graphc.train.source import Batch, Source

EVERY = 256
"""The number of steps between two copies.  A step reads and writes every trained number that a copy
reads, so that a copy takes less time than a step, or, for nets of a few units, less than two steps:
all copies take less than 1 % of the time."""


class Guard:
    """Watches the arrays that were finite at the start, and keeps the state of some steps ago."""

    def __init__(self, ex: Executor, source: Source, at: Position) -> None:
        self._ex, self._source = ex, source
        arrays = ex.snapshot()
        floats = {name: array for name, array in arrays.items() if array.dtype.kind == "f"}
        with np.errstate(all="ignore"):
            self._watched = [name for name, array in floats.items() if _good(array)]
        self._copy = arrays
        self._at = replace(at)

    def mark(self, at: Position) -> None:
        """Copy the state at this position; it must be finite, for a trace starts there."""
        arrays = self._ex.state.arrays
        writes = [partial(copy.__setitem__, ..., arrays[k]) for k, copy in self._copy.items()]
        self._ex.state.lock(run_all, [*writes, partial(setattr, self, "_at", replace(at))])
        self._source.release(at.epoch, at.step)

    def check_state(self, at: Position) -> None:
        """Raise NotFiniteError, traced, if the state is not finite; `at` is after its last step."""
        if not self._state_good():
            raise self.trace(at, float("nan"))

    def trace(self, at: Position, loss: float) -> NotFiniteError:
        """Return the error for a non-finite number before `at`, or in its step if that gave `loss`.

        The executor is left as it was before the step at fault.
        """
        ex, last = self._ex, replace(at)
        inner = unwrapped(self._source)
        if isinstance(inner, ArraySource):
            inner.whole = True  # a trace looks at the rows of all ranks
        ex.state = self._copy
        for epoch, step, (rows, feeds) in self._again(last):
            before = ex.snapshot()
            made = ex.step(feeds)
            if isfinite(made) and self._state_good():
                continue
            ex.state = before
            origin = traced(ex, feeds, before)
            return found(ex, origin, Position(epoch, step), rows, made, self._source)
        ex.state = self._copy
        return not_again(at, loss)

    def _again(self, last: Position) -> Iterator[tuple[int, int, Batch]]:
        """Yield the steps from the copy on, the one at `last` included."""
        for epoch in range(self._at.epoch, last.epoch + 1):
            start = self._at.step if epoch == self._at.epoch else 0
            for step, batch in enumerate(self._source.batches(epoch, start), start):
                if epoch == last.epoch and step > last.step:
                    return
                yield epoch, step, batch

    def _state_good(self) -> bool:
        arrays = self._ex.state.arrays
        with np.errstate(all="ignore"):
            return all(_good(arrays[name]) for name in self._watched)


def _good(array: Array) -> bool:
    """Return whether all numbers are finite; then their sum is, too, unless it is too large."""
    return isfinite(np.add.reduce(array, axis=None)) or bool(np.isfinite(array).all())
