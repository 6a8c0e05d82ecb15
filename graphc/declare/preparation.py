"""The preparation of a table's columns as part of a net: missing numbers and categories."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.ir.build import Value
from graphc.ir.op import Array
from graphc.ops.logic import isnan
from graphc.ops.row_norm import standardize
from graphc.ops.select import equal, where
from graphc.ops.shape import cast
from graphc.ops.slicing import concat, slice_
from graphc.ops.source import constant


@dataclass(frozen=True)
class Preparation:
    """The columns of x (N, features) by what becomes of them.

    Missing numbers become the mean, and a further feature says which they were, for the columns of
    `gaps`.  A column of `categories` becomes a feature for each of its values, which is 1 where
    the column has it; all are 0 for other values, and for missing ones.
    """

    numbers: tuple[int, ...]
    gaps: tuple[int, ...]
    categories: tuple[tuple[int, tuple[float, ...]], ...]

    @classmethod
    def of(cls, x: Array, categories: Collection[int]) -> Preparation:
        """Return the preparation for these rows."""
        numbers = [column for column in range(x.shape[1]) if column not in categories]
        gaps = [column for column in numbers if np.isnan(x[:, column]).any()]
        values = [(column, _values(x[:, column])) for column in sorted(categories)]
        return cls(tuple(numbers), tuple(gaps), tuple(found for found in values if found[1]))

    def features(self, x: Value, *, standardized: bool) -> Value:
        """Return the features of x; without standardisation missing numbers become 0."""
        missing = isnan(x)
        known = standardize(x, name="features") if standardized else x
        filled = where(missing, 0.0, known)
        parts = list(_columns(filled, self.numbers))
        parts += _columns(cast(missing, x.dtype), self.gaps)
        for column, values in self.categories:
            table = constant(x.builder, np.array([values], x.dtype))
            (own,) = _columns(x, [column])
            parts.append(cast(equal(own, table), x.dtype))
        return parts[0] if len(parts) == 1 else concat(parts, 1)


def _values(column: Array) -> tuple[float, ...]:
    return tuple(np.unique(column[~np.isnan(column)]).tolist())


def _columns(x: Value, columns: Sequence[int]) -> Iterator[Value]:
    """Yield the columns of x, those that follow one another as one value."""
    start = 0
    for at in range(1, len(columns) + 1):
        if at == len(columns) or columns[at] != columns[at - 1] + 1:
            yield slice_(x, (slice(None), slice(columns[start], columns[at - 1] + 1)))
            start = at
