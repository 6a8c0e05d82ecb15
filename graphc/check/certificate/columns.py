"""Numbers and sizes as columns of a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.check.certificate.tables import Ints
from graphc.ir.tensor_type import Batch, Dim

Pair = tuple[int, int]
"""A size (a, b) that means a + b*N."""


def pair(dim: Dim) -> Pair:
    """Return a dimension as a size."""
    return (0, dim.factor) if isinstance(dim, Batch) else (dim, 0)


def column(numbers: Sequence[int]) -> Ints:
    """Return numbers as a column."""
    return np.array(numbers, np.int64)


def pairs(numbers: Sequence[Pair]) -> Ints:
    """Return sizes as a column of pairs."""
    return np.array(numbers, np.int64).reshape(-1, 2)
