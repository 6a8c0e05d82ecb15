"""The axis of an array along which its rows are."""

from __future__ import annotations

import numpy as np

from graphc.op import Array
from graphc.tensor_type import Batch, TensorType


class RowAxis:
    """Where the rows of an array are: `factor` entries of `axis` belong to one row."""

    def __init__(self, axis: int, factor: int) -> None:
        self.axis, self.factor = axis, factor

    @classmethod
    def of(cls, type: TensorType) -> RowAxis | None:
        """None for an array that every batch shares."""
        for axis, dim in enumerate(type.shape):
            if isinstance(dim, Batch):
                return cls(axis, dim.factor)
        return None

    def split(self, array: Array) -> Array:
        """The array with one entry of the axis for each row."""
        return np.ascontiguousarray(array).reshape(self._shape(array, -1))

    def buffer(self, array: Array, n: int) -> Array:
        """Memory for `n` rows of the array."""
        return np.empty(array.size // array.shape[self.axis] * self.factor * n, array.dtype)

    def cut(self, buffer: Array, array: Array, n: int) -> Array:
        """The buffer as `n` rows, split as by `split`."""
        shape = self._shape(array, n)
        return buffer[: int(np.prod(shape))].reshape(shape)

    def join(self, rows: Array) -> Array:
        """Rows that are split as one array of the declared rank; the same memory."""
        head, tail = rows.shape[: self.axis], rows.shape[self.axis + 2 :]
        return rows.reshape(*head, rows.shape[self.axis] * self.factor, *tail)

    def rows(self, array: Array, start: int, stop: int) -> Array:
        """Some rows of the array, as a view."""
        index = [slice(None)] * array.ndim
        index[self.axis] = slice(start * self.factor, stop * self.factor)
        return array[tuple(index)]

    def _shape(self, array: Array, n: int) -> tuple[int, ...]:
        n = array.shape[self.axis] // self.factor if n < 0 else n
        return (*array.shape[: self.axis], n, self.factor, *array.shape[self.axis + 1 :])
