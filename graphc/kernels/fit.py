"""How a node stands in the matrix that a kernel runs over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.graph import Node
from graphc.kernels.body import Axis, Span
from graphc.kernels.matrix import Space, broadcast_span, flat, matrix
from graphc.op import Op
from graphc.ops.affine import Affine
from graphc.ops.dropout import DropoutMask
from graphc.ops.fused import AffineRelu, MatMulReluGrad
from graphc.ops.linalg import MatMul
from graphc.tensor_type import Batch, TensorType, count

PRODUCTS = (Affine, AffineRelu, MatMul, MatMulReluGrad)


@dataclass(frozen=True)
class Fit:
    """How a node would stand in a group."""

    role: Span
    operands: tuple[Span, ...]
    axis: Axis | None


def product_of(op: Op, ins: list[TensorType]) -> tuple[bool, bool] | None:
    """For a matrix product that has a kernel: whether each factor is transposed."""
    if not isinstance(op, PRODUCTS):
        return None
    a, b = ins[:2]
    trans_a = bool(getattr(op, "trans_a", False))
    trans_b = bool(getattr(op, "trans_b", False))
    if is_stacked(op, ins):
        counted = [*a.shape[-2:], *b.shape[-2:]]
        return None if any(isinstance(dim, Batch) for dim in counted) else (trans_a, trans_b)
    inner = (a.shape[-1], b.shape[1], b.shape[0 if trans_b else 1])
    return None if any(isinstance(dim, Batch) for dim in inner) else (trans_a, trans_b)


def is_stacked(op: Op, ins: list[TensorType]) -> bool:
    """Whether a product is one of many matrices, rather than of two.

    Many matrices by one are a single product of all their rows.
    """
    a, b = ins[:2]
    return b.rank > 2 or (a.rank > 2 and bool(getattr(op, "trans_a", False)))


def fits_of(op: Op, result: TensorType, ins: Sequence[TensorType]) -> dict[Space, Fit]:
    """The matrices that an op can run over, and how its result and operands stand in each.

    The one that it runs over by itself comes first; none where it has no kernel.
    """
    along = op.along(ins)
    if along == "call":
        return {}
    if along == "all":
        whole: list[Span] = ["each" for _ in ins]
        return {flat(ins[0].shape): Fit("row", tuple(whole), "columns")}
    spans = op.spans(ins)
    if along == "elements":
        return _on_elements(result, ins, spans)
    assert spans is not None, f"{op.name} says how its operands stand"
    axis: Axis = "rows" if along == "rows" else "columns"
    row_axes = op.row_axes(ins)
    space = matrix(ins[0].shape, row_axes)
    return {space: Fit(_result_span(result, row_axes, space, axis), spans, axis)}


def _on_elements(
    result: TensorType, ins: Sequence[TensorType], spans: tuple[Span, ...] | None
) -> dict[Space, Fit]:
    """Where an op on elements can run: in all matrices that its operands stand in."""
    role: Span = "each" if result.rank else "row"
    if spans is not None:
        return {matrix(result.shape): Fit(role, spans, None)}
    found: dict[Space, Fit] = {}
    for row_axes in range(1, max(result.rank, 2)):
        stand = [broadcast_span(type.shape, result.shape, row_axes) for type in ins]
        known = tuple(span for span in stand if span is not None)
        if len(known) == len(stand):
            found.setdefault(matrix(result.shape, row_axes), Fit(role, known, None))
    return found


def _result_span(type: TensorType, row_axes: int, space: Space, axis: Axis) -> Span:
    if type.rank > row_axes and matrix(type.shape, row_axes) == space:
        return "each"
    return "row" if axis == "columns" else "column"


def product_fit(node: Node, ins: list[TensorType]) -> Fit:
    """How a matrix product and what follows it stand in the result's matrix."""
    found = (broadcast_span(type.shape, node.type.shape) for type in ins[2:])
    extra: tuple[Span, ...] = tuple(span or "each" for span in found)
    return Fit("each", ("each", "each", *extra), None)


def in_epilogue(op: Op, fit: Fit) -> bool:
    """Whether a node can run on a product while it is in registers."""
    return fit.axis is None and not draws(op)


def draws(op: Op) -> bool:
    """Whether an op makes random numbers, which serve many columns at once."""
    return isinstance(op, DropoutMask)


def is_number(type: TensorType) -> bool:
    """Whether a value has one element."""
    return all(dim == 1 for dim in type.shape)


def stands_as(type: TensorType, role: Span, space: Space) -> bool:
    """Whether a value can be one number for each row, or for each column, of the space."""
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
