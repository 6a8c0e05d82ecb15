"""The memory of the values in a kernel: buffers, temporaries and numbers, and the parts of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from graphc.ir.expr import Broadcast, Step
from graphc.ir.op import Array
from graphc.ir.tensor_type import Batch, dim_at, shape_at
from graphc.kernels.kernel import Single


class Value(NamedTuple):
    """A value of a kernel: its kind of memory, and its key there.

    The key is a buffer's name, the number of a temporary, a number, what a size is of (see `Step`),
    or the step that gathers elements which are a view of a buffer.
    """

    memory: Literal["buffer", "temporary", "number", "size", "index", "gathered"]
    key: str | int | float | Batch | Step
    broadcast: Broadcast
    dtype: str


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a kernel's iteration space: some of its rows, or of its columns.

    If the kernel has more dimensions, `rows` counts lines: all places of an image are one line.
    """

    rows: slice
    columns: slice

    @property
    def height(self) -> int:
        """The number of lines."""
        return int(self.rows.stop - self.rows.start)

    @property
    def width(self) -> int:
        """The number of columns."""
        return int(self.columns.stop - self.columns.start)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The iteration space of a kernel for `n` rows: lines of `places` rows, and columns."""

    n: int
    lines: int
    places: tuple[int, ...]
    columns: int

    @classmethod
    def of(cls, kernel: Single, n: int) -> Sizes:
        """Return the iteration space of a kernel in a run of `n` rows."""
        rows, columns = (dim_at(dim, n) for dim in kernel.space)
        places = shape_at(kernel.places, n)
        return cls(n, rows // max(prod(places), 1), places, columns)

    @property
    def rows(self) -> int:
        """The rows of all lines."""
        return self.lines * prod(self.places)

    @property
    def whole(self) -> Part:
        """The part that consists of all rows and columns."""
        return Part(slice(0, self.lines), slice(0, self.columns))

    def shape(self, broadcast: Broadcast, part: Part | None = None) -> tuple[int, ...]:
        """Return the shape of a value over a part, by default over all."""
        part = part or self.whole
        rows = (part.height, *self.places)
        if broadcast not in ("each", "row"):
            rows = (1,) * len(rows)
        return (*rows, part.width if broadcast in ("each", "column") else 1)

    def cut(self, array: Array, broadcast: Broadcast, part: Part) -> Array:
        """Return the elements of a whole value that belong to a part."""
        if broadcast in ("each", "row"):
            array = array[part.rows]
        return array[..., part.columns] if broadcast in ("each", "column") else array


def matrix_of(array: Array, shape: tuple[int, ...]) -> Array:
    """Return a buffer in another shape; a view of some columns keeps its row pitch."""
    if array.flags.c_contiguous:
        return array.reshape(shape)
    rows = shape[:-1]
    pitch, item = array.strides[0], array.itemsize
    assert prod(rows) == len(array), "the rows of a view are its first dimension"
    strides = [pitch * prod(rows[i + 1 :]) for i in range(len(rows))]
    return as_strided(array, shape, (*strides, item))


def number(value: float, dtype: str | np.dtype[np.generic]) -> Array:
    """Return a number as an array without axes: a ufunc converts any other number at each call."""
    return np.array(value, dtype)
