"""How a node stands in the matrix that a kernel runs over."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.graph import Node
from graphc.kernels.body import Axis, Span
from graphc.kernels.matrix import Space, broadcast_span, flat, matrix
from graphc.op import Op
from graphc.ops.affine import Affine
from graphc.ops.dropout import DropoutMask
from graphc.ops.fused import AffineRelu, MatMulReluGrad
from graphc.ops.linalg import MatMul
from graphc.tensor_type import Batch, TensorType

PRODUCTS = (Affine, AffineRelu, MatMul, MatMulReluGrad)


@dataclass(frozen=True)
class Fit:
    """How a node would stand in a group."""

    role: Span
    operands: tuple[Span, ...]
    axis: Axis | None


def product_of(op: Op, ins: list[TensorType]) -> tuple[bool, bool] | None:
    """For a matrix product that has a kernel: whether each factor is transposed."""
    if not isinstance(op, PRODUCTS) or ins[0].rank != 2 or ins[1].rank != 2:
        return None
    trans_a = bool(getattr(op, "trans_a", False))
    trans_b = bool(getattr(op, "trans_b", False))
    inner = (ins[0].shape[1], ins[1].shape[1], ins[1].shape[0 if trans_b else 1])
    return None if any(isinstance(dim, Batch) for dim in inner) else (trans_a, trans_b)


def own_space(node: Node, ins: list[TensorType]) -> Space:
    """The matrix that a node runs over by itself."""
    along = node.op.along(ins)
    if along == "all":
        return flat(ins[0].shape)
    if along == "elements":
        return matrix(node.type.shape)
    return matrix(ins[0].shape)


def own_fit(node: Node, ins: list[TensorType]) -> Fit | None:
    """How a node and its operands stand in its own space; None where it has no kernel."""
    along = node.op.along(ins)
    if along == "call":
        return None
    if along == "all":
        whole: list[Span] = ["each" for _ in ins]
        return Fit("row", tuple(whole), "columns")
    spans = node.op.spans(ins)
    if along == "elements":
        role: Span = "each" if node.type.rank else "row"
        if spans is None:
            found = [broadcast_span(type.shape, node.type.shape) for type in ins]
            spans = tuple(span for span in found if span is not None)
            if len(spans) < len(found):
                return None
        return Fit(role, spans, None)
    assert spans is not None, f"{node.op.name} says how its operands stand"
    axis: Axis = "rows" if along == "rows" else "columns"
    return Fit(_result_span(node.type, matrix(ins[0].shape), axis), spans, axis)


def _result_span(type: TensorType, space: Space, axis: Axis) -> Span:
    if type.rank >= 2 and matrix(type.shape) == space:
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
        return type.rank >= 1 and type.shape[0] == space[0] and is_number(_rest(type))
    if role == "column":
        shape = type.shape
        return shape == (space[1],) or (
            len(shape) > 1 and shape[0] == 1 and matrix(shape) == (1, space[1])
        )
    return False


def _rest(type: TensorType) -> TensorType:
    return type.with_shape(type.shape[1:])
