"""The rows of arrays: along which axis they lie, and some of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.ir.op import Array
from graphc.ir.tensor_type import N, TensorType, batch_axes, shape_at


class RowAxis:
    """The axis of an array that has its rows: `factor` entries of `axis` belong to one row."""

    def __init__(self, axis: int, factor: int) -> None:
        self.axis, self.factor = axis, factor

    @classmethod
    def of(cls, type: TensorType) -> RowAxis | None:
        """Return the row axis of a type; None for pairs, and for what every batch shares."""
        found = [] if type.pairs_rows else batch_axes(type.shape)
        return cls(found[0][0], found[0][1].factor) if found else None

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


def has_plain_rows(type: TensorType) -> bool:
    """Return whether the rows of a type follow one another, if it has rows."""
    return type.shape[:1] == (N,) or not type.batched


def rows_of(array: Any, type: TensorType, chosen: slice | NDArray[np.intp]) -> Any:
    """Return some rows of an array, a view if they follow one another, or of a list of rows.

    All of an array is returned if its type has no batch, or two: pairs of rows are never cut.
    """
    if isinstance(array, list):
        return array[chosen] if isinstance(chosen, slice) else [array[i] for i in chosen]
    axis = RowAxis.of(type)
    if axis is None:
        return array
    if isinstance(chosen, slice):
        return axis.rows(array, chosen.start, chosen.stop)
    return axis.join(np.take(axis.split(array), chosen, axis.axis))


def put_rows(array: Array, type: TensorType, chosen: slice | NDArray[np.intp], rows: Array) -> None:
    """Write some rows of an array, which is one block of memory."""
    axis = RowAxis.of(type)
    if axis is None or isinstance(chosen, slice):
        rows_of(array, type, chosen)[...] = rows
    else:
        place: tuple[Any, ...] = (*[slice(None)] * axis.axis, chosen)
        axis.split(array)[place] = axis.split(rows)


def first_rows(array: Array, type: TensorType, n: int) -> Array:
    """Return the first `n` rows of an array as a view; of pairs, those of these rows."""
    return array[tuple(map(slice, shape_at(type.shape, n)))]
