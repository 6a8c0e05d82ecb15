"""Images with their channels first, as users have them, and last, as kernels read them."""

from __future__ import annotations

import numpy as np

from graphc.ir.build import Value
from graphc.ir.op import Array
from graphc.ir.tensor_type import Shape, TensorType, count
from graphc.ops.shape import reshape, transpose


def last(type: TensorType) -> TensorType:
    """Return the type (n, *space, c) for a type (n, c, *space)."""
    n, c, *space = type.shape
    return type.with_shape((n, *space, c))


def first(type: TensorType) -> TensorType:
    """Return the type (n, c, *space) for a type (n, *space, c)."""
    n, *space, c = type.shape
    return type.with_shape((n, c, *space))


def last_array(array: Array) -> Array:
    """Return an array (n, c, *space) as (n, *space, c)."""
    return np.moveaxis(array, 1, -1)


def first_array(array: Array) -> Array:
    """Return an array (n, *space, c) as (n, c, *space), in C order."""
    return np.ascontiguousarray(np.moveaxis(array, -1, 1))


def channels_last(x: Value, *, name: str | None = None) -> Value:
    """Return x (n, c, *space) as (n, *space, c); no copy if c is 1 or all of space is."""
    rank = x.type.rank
    if _one(x.shape[1:2]) or _one(x.shape[2:]):
        return reshape(x, last(x.type).shape, name=name)
    return transpose(x, (0, *range(2, rank), 1), name=name)


def channels_first(x: Value, *, name: str | None = None) -> Value:
    """Return x (n, *space, c) as (n, c, *space); no copy if c is 1 or all of space is."""
    rank = x.type.rank
    if _one(x.shape[-1:]) or _one(x.shape[1:-1]):
        return reshape(x, first(x.type).shape, name=name)
    return transpose(x, (0, rank - 1, *range(1, rank - 1)), name=name)


def pixels(x: Value, *, name: str | None = None) -> Value:
    """Return x (n, *space, c) as a matrix with a row for each pixel."""
    return reshape(x, (count(x.shape[:-1]), x.shape[-1]), name=name)


def _one(dims: Shape) -> bool:
    return all(dim == 1 for dim in dims)
