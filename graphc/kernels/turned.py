"""Values whose axes are in another order, read or written where they are: by strides."""

from __future__ import annotations

from graphc.tensor_type import Shape, count


def dense_strides(shape: Shape) -> Shape:
    """The elements from one to the next along each axis, in C order."""
    return tuple(count(shape[axis + 1 :]) for axis in range(len(shape)))


def turned_strides(shape: Shape, axes: tuple[int, ...]) -> Shape:
    """Those of a value of `shape` with its axes in another order, along these."""
    dense = dense_strides(shape)
    return tuple(dense[axis] for axis in axes)


def stored_strides(shape: Shape, axes: tuple[int, ...]) -> Shape:
    """Where a value lies whose transpose is stored: along the axes before, for a transpose of
    `shape`."""
    dense = dense_strides(shape)
    return tuple(dense[axes.index(axis)] for axis in range(len(axes)))


def is_readable(strides: Shape) -> bool:
    """Whether a product can read such matrices: their rows, or their columns, are in one piece."""
    return (
        len(strides) > 2 and 1 in strides[-2:] and all(isinstance(dim, int) for dim in strides[-2:])
    )


def is_storable(shape: Shape, axes: tuple[int, ...]) -> bool:
    """Whether a product can store its transpose of `shape`: rows stay in one piece, and are as far
    apart whatever the batch is."""
    return axes[-1] == len(axes) - 1 and isinstance(stored_strides(shape, axes)[-2], int)
