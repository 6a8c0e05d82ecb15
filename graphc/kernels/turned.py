"""Values with permuted axes, read or written in place by strides."""

from __future__ import annotations

from graphc.ir.tensor_type import Shape, count


def dense_strides(shape: Shape) -> Shape:
    """Return the elements from one to the next along each axis, in C order."""
    return tuple(count(shape[axis + 1 :]) for axis in range(len(shape)))


def turned_strides(shape: Shape, axes: tuple[int, ...]) -> Shape:
    """Return the strides of a contiguous value of `shape` with its axes in the order `axes`."""
    dense = dense_strides(shape)
    return tuple(dense[axis] for axis in axes)


def stored_strides(shape: Shape, axes: tuple[int, ...]) -> Shape:
    """Return the strides, by its own axes, of a value whose transpose of `shape` is stored."""
    dense = dense_strides(shape)
    return tuple(dense[axes.index(axis)] for axis in range(len(axes)))


def is_readable(strides: Shape) -> bool:
    """Return whether a product can read such matrices: their rows or columns are contiguous."""
    return (
        len(strides) > 2 and 1 in strides[-2:] and all(isinstance(dim, int) for dim in strides[-2:])
    )


def is_storable(shape: Shape, axes: tuple[int, ...]) -> bool:
    """Return whether a product can store its transpose of `shape`.

    Rows must stay contiguous, and equally far apart whatever the batch is.
    """
    return axes[-1] == len(axes) - 1 and isinstance(stored_strides(shape, axes)[-2], int)
