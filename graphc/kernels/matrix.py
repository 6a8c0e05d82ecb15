"""Every value seen as a matrix: rows are its first dimensions, one or more, columns the others."""

from __future__ import annotations

from graphc.kernels.body import Span
from graphc.tensor_type import Dim, Shape, count

Space = tuple[Dim, Dim]
"""The rows and columns that a kernel runs over."""

SCALAR: Space = (1, 1)


def matrix(shape: Shape, row_axes: int = 1) -> Space:
    """A shape as a matrix: its first `row_axes` dimensions are rows; a vector is one row."""
    if not shape:
        return SCALAR
    if len(shape) == 1:
        return 1, shape[0]
    return count(shape[:row_axes]), count(shape[row_axes:])


def flat(shape: Shape) -> Space:
    """All elements as one row."""
    return 1, count(shape)


def broadcast_span(shape: Shape, result: Shape, row_axes: int = 1) -> Span | None:
    """How an operand stands in a matrix view of what it is broadcast to.

    None where it is none of a whole matrix, a row, a column and a number.
    """
    padded = (1,) * (len(result) - len(shape)) + shape
    if all(dim == 1 for dim in padded):
        return "one" if result != padded or not result else "each"
    if padded == result:
        return "each"
    if len(result) < 2:
        return None
    above, right = padded[:row_axes], padded[row_axes:]
    if above == result[:row_axes] and all(dim == 1 for dim in right):
        return "row"
    if all(dim == 1 for dim in above) and right == result[row_axes:]:
        return "column"
    return None
