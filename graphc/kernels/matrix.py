"""Every value seen as a matrix: rows are its first dimension, columns all the others."""

from __future__ import annotations

from graphc.kernels.body import Span
from graphc.tensor_type import Dim, Shape, count

Space = tuple[Dim, Dim]
"""The rows and columns that a kernel runs over."""

SCALAR: Space = (1, 1)


def matrix(shape: Shape) -> Space:
    """The matrix view of a shape; a vector is one row."""
    if not shape:
        return SCALAR
    if len(shape) == 1:
        return 1, shape[0]
    return shape[0], count(shape[1:])


def flat(shape: Shape) -> Space:
    """All elements as one row."""
    return 1, count(shape)


def broadcast_span(shape: Shape, result: Shape) -> Span | None:
    """How an operand stands in the matrix view of what it is broadcast to.

    None where it is none of a whole matrix, a row, a column and a number.
    """
    padded = (1,) * (len(result) - len(shape)) + shape
    if all(dim == 1 for dim in padded):
        return "one" if result != padded or not result else "each"
    if padded == result:
        return "each"
    if len(result) < 2:
        return None
    if padded[0] == result[0] and all(dim == 1 for dim in padded[1:]):
        return "row"
    if padded[0] == 1 and padded[1:] == result[1:]:
        return "column"
    return None
