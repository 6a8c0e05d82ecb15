"""The iteration spaces of kernels, and how values vary over them.

Every value is a matrix: rows are its first dimension, columns all the others.  If values do not
broadcast so, rows are more of the first dimensions; for results of products all but the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from graphc.ir.expr import Axis, Broadcast
from graphc.ir.graph import Node
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


Access = Broadcast | Literal["gathered"]
"""The way a node reads an operand: by its broadcast kind, or by a gather."""


class Placement(NamedTuple):
    """The way a node runs in an iteration space.

    These are the broadcast kinds of its value and of its operands, and its reduction axis.
    """

    kind: Broadcast
    operands: tuple[Access, ...]
    axis: Axis | None


def placements_of(node: Node, ins: list[TensorType]) -> dict[Space, Placement]:
    """Return the placements of a node in the spaces that it can run over by itself.

    An op on elements runs over the matrix of its first dimension by all others, or over that of all
    dimensions by the last; the first one found is its choice.  Without a kernel there are none.
    """
    iteration = node.op.iteration(ins)
    if iteration == "call":
        return {}
    if iteration == "all":
        whole: list[Broadcast] = ["each" for _ in ins]
        return {flat(ins[0].shape): Placement("row", tuple(whole), "columns")}
    if iteration == "elements":
        return _of_elements(node, ins)
    broadcasts = node.op.broadcast_kinds(ins)
    assert broadcasts is not None, f"{node.op.name} says how its operands broadcast"
    space = by_lead(ins[0].shape, node.op.lead(ins))
    axis: Axis = "rows" if iteration == "rows" else "columns"
    kind: Broadcast = "row" if axis == "columns" else "column"
    if node.type.rank >= 2 and node.type.shape == ins[0].shape:
        kind = "each"
    return {space: Placement(kind, broadcasts, axis)}


def _of_elements(node: Node, ins: list[TensorType]) -> dict[Space, Placement]:
    shape, broadcasts = node.type.shape, node.op.broadcast_kinds(ins)
    kind: Broadcast = "each" if shape else "row"
    if broadcasts is not None:
        return {by_lead(shape, node.op.lead(ins)): Placement(kind, broadcasts, None)}
    found: dict[Space, Placement] = {}
    for lead in leads(shape):
        kinds = [broadcast_kind(type.shape, shape, lead) for type in ins]
        known = tuple(broadcast for broadcast in kinds if broadcast is not None)
        if len(known) == len(kinds):
            found.setdefault(by_lead(shape, lead), Placement(kind, known, None))
    return found


def gather_placement(ins: Sequence[TensorType]) -> Placement:
    """Return the placement of an op that gathers its operands."""
    operands: list[Access] = ["gathered" for _ in ins]
    return Placement("each", tuple(operands), None)


def product_placement(node: Node, ins: list[TensorType]) -> Placement:
    """Return the placement of a matrix product and its epilogue in the result's matrix."""
    found = (broadcast_kind(type.shape, node.type.shape) for type in ins[2:])
    extra: tuple[Broadcast, ...] = tuple(broadcast or "each" for broadcast in found)
    return Placement("each", ("each", "each", *extra), None)


def is_plain(node: Node, placements: Mapping[Space, Placement]) -> bool:
    """Return whether a node computes the same in any matrix of as many elements.

    It then has rank 3 or more, and reads only elements and numbers.
    """
    placement = next(iter(placements.values()), None)
    if placement is None or node.type.rank < 3 or node.op.is_random or placement.axis is not None:
        return False
    return placement.kind == "each" and set(placement.operands) <= {"each", "one"}


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
