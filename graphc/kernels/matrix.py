"""Every value seen as a matrix: rows are its first dimension, columns all the others.

Where that does not fit rows are more of the first dimensions, and for what products make all but
the last.
"""

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


def by_lead(shape: Shape, lead: int) -> Space:
    """The matrix whose rows are the first `lead` dimensions; a vector is one row."""
    return matrix(shape) if lead == 1 else (count(shape[:lead]), count(shape[lead:]))


def by_last(shape: Shape) -> Space:
    """The matrix whose columns are the last dimension, such as the channels of an image."""
    return by_lead(shape, max(len(shape) - 1, 1))


def flat(shape: Shape) -> Space:
    """All elements as one row."""
    return 1, count(shape)


def leads(shape: Shape) -> tuple[int, ...]:
    """How many of the first dimensions may be rows: one, all but the last, or some between."""
    return (1,) if len(shape) < 3 else (1, len(shape) - 1, *range(2, len(shape) - 1))


def broadcast_span(shape: Shape, result: Shape, lead: int = 1) -> Span | None:
    """How an operand stands in the matrix view of what it is broadcast to.

    Of that, the first `lead` dimensions are rows.  None where it is none of a whole matrix, a
    row, a column and a number.
    """
    padded = (1,) * (len(result) - len(shape)) + shape
    if all(dim == 1 for dim in padded):
        return "one" if result != padded or not result else "each"
    if padded == result:
        return "each"
    if len(result) < 2:
        return None
    if padded[:lead] == result[:lead] and all(dim == 1 for dim in padded[lead:]):
        return "row"
    if all(dim == 1 for dim in padded[:lead]) and padded[lead:] == result[lead:]:
        return "column"
    return None
