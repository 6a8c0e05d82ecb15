"""The axis of an array that holds its rows."""

from __future__ import annotations

import numpy as np

from graphc.ir.op import Array
from graphc.ir.tensor_type import Batch, TensorType


class RowAxis:
    """The axis that holds the rows of an array: `factor` entries of `axis` belong to one row."""

    def __init__(self, axis: int, factor: int) -> None:
        self.axis, self.factor = axis, factor

    @classmethod
    def of(cls, type: TensorType) -> RowAxis | None:
        """Return the row axis of a type; None for an array that every batch shares."""
        for axis, dim in enumerate(type.shape):
            if isinstance(dim, Batch):
                return cls(axis, dim.factor)
        return None

    def split(self, array: Array) -> Array:
        """Return the array with its axis split in two: rows, and a row's `factor` entries."""
        return np.ascontiguousarray(array).reshape(self._shape(array, -1))

    def buffer(self, array: Array, n: int) -> Array:
        """Return memory for `n` rows of the array."""
        return np.empty(array.size // array.shape[self.axis] * self.factor * n, array.dtype)

    def cut(self, buffer: Array, array: Array, n: int) -> Array:
        """Return a view of the buffer as `n` rows, with the axes that `split` makes."""
        shape = self._shape(array, n)
        return buffer[: int(np.prod(shape))].reshape(shape)

    def join(self, rows: Array) -> Array:
        """Return rows that `split` or `cut` gave as an array of the declared rank; no copy."""
        head, tail = rows.shape[: self.axis], rows.shape[self.axis + 2 :]
        return rows.reshape(*head, rows.shape[self.axis] * self.factor, *tail)

    def rows(self, array: Array, start: int, stop: int) -> Array:
        """Return some rows of the array as a view."""
        index = [slice(None)] * array.ndim
        index[self.axis] = slice(start * self.factor, stop * self.factor)
        return array[tuple(index)]

    def _shape(self, array: Array, n: int) -> tuple[int, ...]:
        n = array.shape[self.axis] // self.factor if n < 0 else n
        return (*array.shape[: self.axis], n, self.factor, *array.shape[self.axis + 1 :])
