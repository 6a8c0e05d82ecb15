"""Batches of rows in an order that only the seed and the epoch decide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.init import generator
from graphc.op import Array
from graphc.tensor_type import Batch, TensorType

Rows = NDArray[np.intp]


class Batches:
    """Cuts arrays into batches; all memory is made here, an epoch makes none.

    `arrays` have `rows` rows along the batch axis of their `types`; those without one are fed
    as they are.
    """

    def __init__(
        self, arrays: Mapping[str, Array], types: Mapping[str, TensorType], rows: int, batch: int
    ) -> None:
        self._rows, self._batch = rows, min(batch, rows)
        self._order = np.arange(rows, dtype=np.intp)
        split = {name: _RowAxis.of(types[name]) for name in arrays}
        self._sources = {k: a.split(arrays[k]) for k, a in split.items() if a is not None}
        fixed = {name: arrays[name] for name, a in split.items() if a is None}
        self._sizes: dict[int, tuple[dict[str, Array], dict[str, Array]]] = {}
        buffers = {k: a.buffer(arrays[k], self._batch) for k, a in split.items() if a is not None}
        for n in {self._batch, rows % self._batch} - {0}:
            cut = {k: a.cut(buffers[k], arrays[k], n) for k, a in split.items() if a is not None}
            feeds = {k: a.join(cut[k]) for k, a in split.items() if a is not None}
            self._sizes[n] = cut, {**fixed, **feeds}
        self._axes = {name: a.axis for name, a in split.items() if a is not None}

    def shuffle(self, seed: int, epoch: int) -> None:
        """Put the rows into the order of this seed and epoch, whatever was before."""
        self._order.sort()
        generator(seed, f"epoch {epoch}").shuffle(self._order)

    def __len__(self) -> int:
        return -(-self._rows // self._batch)

    def __iter__(self) -> Iterator[tuple[int, dict[str, Array]]]:
        """The number of rows and the feeds of each batch; the next one overwrites the arrays."""
        for start in range(0, self._rows, self._batch):
            chosen = self._order[start : start + self._batch]
            buffers, feeds = self._sizes[len(chosen)]
            for name, buffer in buffers.items():
                # Any mode but "raise" writes straight into `out`; the rows are all in range.
                np.take(self._sources[name], chosen, self._axes[name], buffer, "clip")
            yield len(chosen), feeds


class _RowAxis:
    """Where the rows of an array are: `factor` entries of `axis` belong to one row."""

    def __init__(self, axis: int, factor: int) -> None:
        self.axis, self.factor = axis, factor

    @classmethod
    def of(cls, type: TensorType) -> _RowAxis | None:
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

    def _shape(self, array: Array, n: int) -> tuple[int, ...]:
        n = array.shape[self.axis] // self.factor if n < 0 else n
        return (*array.shape[: self.axis], n, self.factor, *array.shape[self.axis + 1 :])


def whole(value: Any, least: int) -> bool:
    """Whether a value is a whole number from `least` up."""
    integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return integer and bool(value >= least)
