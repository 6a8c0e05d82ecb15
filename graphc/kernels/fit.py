"""The broadcast kinds of a node and its operands in the matrix that a kernel runs over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from graphc.ir.graph import Node
from graphc.ir.op import Op
from graphc.ir.tensor_type import TensorType, count
from graphc.kernels.body import Axis, Span
from graphc.kernels.matrix import Space, broadcast_span, by_lead, flat, leads, matrix

Seen = Span | Literal["elsewhere"]
"""The way a node reads an operand: at its own element, by its span, or by a gather."""


@dataclass(frozen=True)
class Fit:
    """The spans of a node's value and operands in a group, and its reduction axis."""

    role: Span
    operands: tuple[Seen, ...]
    axis: Axis | None


def fits_of(node: Node, ins: list[TensorType]) -> dict[Space, Fit]:
    """Return the fits of a node in the matrices that it can run over by itself.

    An op on elements fits into the matrix of its first dimension by all others, or into that of all
    dimensions by the last; the first fit found is its choice.  Without a kernel there are none.
    """
    along = node.op.along(ins)
    if along == "call":
        return {}
    if along == "all":
        whole: list[Span] = ["each" for _ in ins]
        return {flat(ins[0].shape): Fit("row", tuple(whole), "columns")}
    if along == "elements":
        return _of_elements(node, ins)
    spans = node.op.spans(ins)
    assert spans is not None, f"{node.op.name} says how its operands stand"
    space = by_lead(ins[0].shape, node.op.lead(ins))
    axis: Axis = "rows" if along == "rows" else "columns"
    role: Span = "row" if axis == "columns" else "column"
    if node.type.rank >= 2 and node.type.shape == ins[0].shape:
        role = "each"
    return {space: Fit(role, spans, axis)}


def _of_elements(node: Node, ins: list[TensorType]) -> dict[Space, Fit]:
    shape, spans = node.type.shape, node.op.spans(ins)
    if spans is not None:
        return {by_lead(shape, node.op.lead(ins)): Fit("each" if shape else "row", spans, None)}
    found: dict[Space, Fit] = {}
    for lead in leads(shape):
        stands = [broadcast_span(type.shape, shape, lead) for type in ins]
        known = tuple(span for span in stands if span is not None)
        if len(known) == len(stands):
            found.setdefault(by_lead(shape, lead), Fit("each" if shape else "row", known, None))
    return found


def is_plain(node: Node, fits: Mapping[Space, Fit]) -> bool:
    """Return whether a node computes the same in any matrix of as many elements.

    It then has rank 3 or more, and reads only elements and numbers.
    """
    fit = next(iter(fits.values()), None)
    if fit is None or node.type.rank < 3 or node.op.is_random or fit.axis is not None:
        return False
    return fit.role == "each" and set(fit.operands) <= {"each", "one"}


def reader_fit(ins: Sequence[TensorType]) -> Fit:
    """Return the fit of an op that gathers its operands."""
    operands: list[Seen] = ["elsewhere" for _ in ins]
    return Fit("each", tuple(operands), None)


def product_fit(node: Node, ins: list[TensorType]) -> Fit:
    """Return the fit of a matrix product and its epilogue in the result's matrix."""
    found = (broadcast_span(type.shape, node.type.shape) for type in ins[2:])
    extra: tuple[Span, ...] = tuple(span or "each" for span in found)
    return Fit("each", ("each", "each", *extra), None)


def in_epilogue(op: Op, fit: Fit) -> bool:
    """Return whether a node can run on a product while that is in registers."""
    return fit.axis is None and not op.is_random


def is_number(type: TensorType) -> bool:
    """Return whether a value has one element."""
    return all(dim == 1 for dim in type.shape)


def stands_as(type: TensorType, role: Span, space: Space) -> bool:
    """Return whether a value can be one number for each row, or each column, of the space."""
    if role == "row":
        if space[0] == 1:
            return is_number(type)
        return type.rank >= 1 and count(type.shape) == space[0]
    if role == "column":
        shape = type.shape
        return shape == (space[1],) or (
            len(shape) > 1 and shape[0] == 1 and matrix(shape) == (1, space[1])
        )
    return False
