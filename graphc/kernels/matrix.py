"""Every value as a matrix: rows are its first dimension, columns all the others.

If that does not fit, rows are more of the first dimensions; for results of products they are all
but the last.
"""

from __future__ import annotations

from graphc.ir.tensor_type import Dim, Shape, count
from graphc.kernels.body import Span

Space = tuple[Dim, Dim]
"""The iteration space of a kernel: its rows and columns."""

SCALAR: Space = (1, 1)


def matrix(shape: Shape) -> Space:
    """Return the matrix view of a shape; a vector is one row."""
    if not shape:
        return SCALAR
    if len(shape) == 1:
        return 1, shape[0]
    return shape[0], count(shape[1:])


def by_lead(shape: Shape, lead: int) -> Space:
    """Return the matrix whose rows are the first `lead` dimensions; a vector is one row."""
    return matrix(shape) if lead == 1 else (count(shape[:lead]), count(shape[lead:]))


def by_last(shape: Shape) -> Space:
    """Return the matrix whose columns are the last dimension, such as the channels of an image."""
    return by_lead(shape, max(len(shape) - 1, 1))


def flat(shape: Shape) -> Space:
    """Return all elements as one row."""
    return 1, count(shape)


def leads(shape: Shape) -> tuple[int, ...]:
    """Return how many first dimensions may be rows: one, all but the last, or some between."""
    return (1,) if len(shape) < 3 else (1, len(shape) - 1, *range(2, len(shape) - 1))


def broadcast_span(shape: Shape, result: Shape, lead: int = 1) -> Span | None:
    """Return the broadcast kind of an operand in the matrix view of the result.

    The first `lead` dimensions of the result are rows.  Return None unless the operand is a whole
    matrix, a row, a column or a number.
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
