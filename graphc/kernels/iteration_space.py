"""The iteration spaces of kernels, and how values vary over them.

Every value is a matrix: rows are its first dimension, columns all the others.  If values do not
broadcast so, rows are more of the first dimensions; for results of products all but the last.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.expr import Broadcast
from graphc.ir.op import Iteration
from graphc.ir.tensor_type import Dim, Shape, TensorType, count

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


def broadcast_kind(shape: Shape, result: Shape, lead: int = 1) -> Broadcast | None:
    """Return the broadcast kind of an operand in the matrix view of the result.

    The first `lead` dimensions of the result are rows.  Return None unless the operand is a whole
    matrix, a row, a column or a number.
    """
    if shape and shape == result:
        return "each"
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


def dense_strides(shape: Shape) -> Shape:
    """Return the strides, in elements, of a contiguous value in C order."""
    return tuple(count(shape[axis + 1 :]) for axis in range(len(shape)))


def permuted_strides(shape: Shape, axes: tuple[int, ...]) -> Shape:
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

    Rows must stay contiguous, at a pitch that does not depend on the batch.
    """
    return axes[-1] == len(axes) - 1 and isinstance(stored_strides(shape, axes)[-2], int)


def is_number(type: TensorType) -> bool:
    """Return whether a value has one element."""
    return all(dim == 1 for dim in type.shape)


def is_of_kind(type: TensorType, kind: Broadcast, space: Space) -> bool:
    """Return whether a value can be one number for each row, or each column, of the space."""
    if kind == "row":
        if space[0] == 1:
            return is_number(type)
        return type.rank >= 1 and count(type.shape) == space[0]
    if kind == "column":
        shape = type.shape
        return shape == (space[1],) or (
            len(shape) > 1 and shape[0] == 1 and matrix(shape) == (1, space[1])
        )
    return False


def elements(ins: Sequence[TensorType], result: TensorType) -> Iteration:
    """Return "elements" for an elementwise op, or "call" if no kernel can compute it.

    A kernel computes a matrix; every operand must broadcast to it by a broadcast kind.
    """
    fits = any(
        all(broadcast_kind(x.shape, result.shape, lead) is not None for x in ins)
        for lead in leads(result.shape)
    )
    return "elements" if fits else "call"
