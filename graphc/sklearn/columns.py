"""The columns of X that a net prepares: which are categories, and numbers for their words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.ir.op import Array

UNKNOWN = -1.0
"""The number of a word that `fit` has not seen."""


@dataclass(frozen=True)
class Words:
    """The words of each column of X in ascending order; none for a column of numbers."""

    columns: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, x: Array) -> Words:
        """Return the words of these columns: of those that have any, all that are not missing."""
        return cls(tuple(_words(x[:, column]) for column in range(x.shape[1])))

    @property
    def categories(self) -> set[int]:
        """The columns of words."""
        return {column for column, words in enumerate(self.columns) if words}

    def numbers(self, x: Array) -> Array:
        """Return x (N, features) as floats: words by their positions, missing values as NaN."""
        if x.dtype.kind in "fiub":
            return x if x.dtype in (np.float32, np.float64) else x.astype(np.float64)
        found = [_coded(x[:, at], words) for at, words in enumerate(self.columns)]
        return np.stack(found, axis=1) if found else np.empty(x.shape)


def _words(column: NDArray[Any]) -> tuple[str, ...]:
    if column.dtype.kind in "fiub" or not any(isinstance(value, str) for value in column):
        return ()
    return tuple(sorted({str(value) for value in column if not _missing(value)}))


def _coded(column: NDArray[Any], words: tuple[str, ...]) -> NDArray[np.float64]:
    if not words:
        return column.astype(np.float64)
    codes = {word: float(code) for code, word in enumerate(words)}
    found = (np.nan if _missing(v) else codes.get(str(v), UNKNOWN) for v in column)
    return np.fromiter(found, np.float64, len(column))


def _missing(value: Any) -> bool:
    """Return whether a value is None, NaN or the NA of pandas."""
    return value is None or value != value or str(value) == "<NA>"


def has_gaps_or_words(x: Any) -> bool:
    """Return whether a dense table has a missing value or a word."""
    table = np.asarray(x, object)
    return table.ndim == 2 and any(isinstance(v, str) or _missing(v) for v in table.flat)


def chosen_columns(given: Any, count: int, names: Sequence[str]) -> set[int]:
    """Return the columns of a list of positions or names, or of a mask.

    Raise ValueError for a column that does not exist.
    """
    if given is None:
        return set()
    listed = np.asarray(given)
    if listed.dtype == bool and listed.shape == (count,):
        return set(np.flatnonzero(listed).tolist())
    known = dict(zip(names, range(count), strict=False)) | {at: at for at in range(count)}
    wrong = [one for one in listed.ravel().tolist() if one not in known or one is True]
    if wrong or listed.ndim != 1:
        raise ValueError(
            f"categorical_features is {given!r}: X has no column {(wrong or [given])[0]!r}"
        )
    return {known[one] for one in listed.tolist()}
