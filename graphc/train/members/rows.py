"""The rows of the members of a population: those they train on, and those they validate on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.base.arguments import whole
from graphc.base.errors import FeedError, GraphError
from graphc.compiler.loss_share import Divisor
from graphc.compiler.plan import Plan
from graphc.ir.init import generator
from graphc.ir.op import Array
from graphc.runtime.row_axis import RowAxis, rows_of
from graphc.runtime.rows import Count

Rows = NDArray[np.intp]
"""The numbers of rows in the arrays that all members share."""
Fold = tuple[Rows, Rows]
"""The rows to train on, and the rows to validate on."""


def folds_of(given: Any, arrays: Mapping[str, Any], rows: int, seed: int) -> list[Fold]:
    """Return the folds that a number or pairs of rows name; raise GraphError if they make no sense.

    Folds that are counted have equally many rows, or one more, and so has each class in them.
    """
    count = whole(given, 2)
    if count is None:
        return [_checked(pair, rows) for pair in _listed(given)]
    if count > rows:
        raise GraphError(f"fit: folds is {count}, there are only {rows} rows")
    parts = _parts(count, arrays, rows, seed)
    return [(np.flatnonzero(parts != fold), np.flatnonzero(parts == fold)) for fold in range(count)]


def _parts(count: int, arrays: Mapping[str, Any], rows: int, seed: int) -> Rows:
    """Return the number of the fold of each row, in turn within each class."""
    order = generator(seed, "folds").permutation(rows)
    vectors = [a for a in arrays.values() if np.ndim(a) == 1 and np.asarray(a).dtype.kind in "iu"]
    if len(vectors) == 1:
        order = order[np.argsort(vectors[0][order], kind="stable")]
    parts = np.empty(rows, np.intp)
    parts[order] = np.arange(rows) % count
    return parts


def _listed(given: Any) -> Sequence[Any]:
    try:
        pairs = [tuple(pair) for pair in given]
    except TypeError:
        pairs = []
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise GraphError(
            f"fit: folds is {given!r}, neither a number from 2 up nor pairs of rows",
            hint="folds=5, or folds=[(rows to train on, rows to validate on), ...]",
        )
    return pairs


def _checked(pair: Any, rows: int) -> Fold:
    """Return the two arrays of row numbers; raise GraphError if they are not."""
    train, held = (np.asarray(part) for part in pair)
    for part in (train, held):
        if part.ndim != 1 or part.dtype.kind not in "iu" or not part.size:
            raise GraphError(
                f"fit: folds has {part.dtype}{list(part.shape)}, not the numbers of some rows",
                hint="folds=[(rows to train on, rows to validate on), ...]",
            )
        if not 0 <= part.min() <= part.max() < rows:
            wrong = part.min() if part.min() < 0 else part.max()
            raise GraphError(f"fit: folds names row {wrong}, there are rows 0 to {rows - 1}")
    return train.astype(np.intp), held.astype(np.intp)


def bootstrap_rows(seed: int, rows: int) -> Rows:
    """Return as many rows, drawn with replacement."""
    return generator(seed, "bootstrap").integers(rows, size=rows).astype(np.intp)


def order(count: int, seed: int, epoch: int) -> Rows:
    """Return the order of rows in an epoch, as `ArraySource` shuffles them."""
    found = np.arange(count, dtype=np.intp)
    generator(seed, f"epoch {epoch}").shuffle(found)
    return found


class Shares:
    """The weight of the loss of a batch in the mean of an epoch."""

    def __init__(self, plan: Plan, arrays: Mapping[str, Any]) -> None:
        self._count = Count.of_steps(plan)
        by = self._count.by
        inputs = by.inputs if isinstance(by, Divisor) else ()
        self._types = {name: plan.declared[name].type for name in inputs}
        self._arrays = {name: arrays[name] for name in inputs}
        self.reads_state = self._count.reads_state
        """True if members may differ in it."""
        alike = all(bool((array == array.flat[0]).all()) for array in self._arrays.values())
        self.by_number = alike and not self.reads_state
        """True if it depends on the number of rows alone."""

    def __call__(self, rows: Rows, state: Mapping[str, Array]) -> float:
        """Return the weight of a batch of these rows."""
        feeds = {name: rows_of(a, self._types[name], rows) for name, a in self._arrays.items()}
        return self._count(feeds, len(rows), state)


def arrays_of_rows(plan: Plan, arrays: Mapping[str, Any]) -> dict[str, Array]:
    """Return the arrays in the dtypes of their inputs; raise FeedError for what has no rows.

    Conversions that could lose something are left to the check of each step.
    """
    found = {}
    for name, array in arrays.items():
        type = plan.declared[name].type
        if RowAxis.of(type) is None or isinstance(array, list):
            raise FeedError(
                f"members train on rows of their own, which cannot be chosen from {name!r}",
                operands=[plan.declared[name].described("input")],
                hint="leave out folds= and bootstrap=, and give all the same seed",
            )
        converts = type.is_float and array.dtype.kind in "fiub"
        found[name] = np.ascontiguousarray(array, type.dtype if converts else None)
    return found
