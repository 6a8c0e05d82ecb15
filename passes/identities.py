"""Rewrites of one node that keep every bit: what `fold_constants` leaves out or joins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.ir.graph import Node
from graphc.ir.op import Op
from graphc.ops.elementwise import Div, Mul, Neg, Power, Sub
from graphc.ops.reduce import BroadcastTo
from graphc.ops.shape import Cast, Reshape, Transpose
from graphc.ops.slicing import Concat, Slice
from graphc.ops.source import Constant

KINDS = Mul, Div, Sub, Neg, Power, Transpose, Slice, Reshape, BroadcastTo, Cast, Concat
"""The ops for which `simplify` has a rewrite."""


def simplify(node: Node, operands: Sequence[Node], nodes: Mapping[str, Node]) -> Node:
    """Return the node, a simpler one of its name, or the earlier node that equals it."""
    joined = _joined(node, operands[0])
    read = operands if joined is node else [nodes[name] for name in joined.inputs]
    equal = _equal_operand(joined.op, read, nodes)
    return joined if equal is None or equal.type != node.type else equal


def _equal_operand(op: Op, operands: Sequence[Node], nodes: Mapping[str, Node]) -> Node | None:
    """Return the node that an op's result equals, provided that it also has the result's type."""
    x = operands[0]
    if isinstance(op, Mul):
        return x if _is_all(operands[1], 1) else operands[1] if _is_all(x, 1) else None
    if isinstance(op, Div):
        return x if _is_all(operands[1], 1) else None
    if isinstance(op, Sub):
        return x if _is_all(operands[1], 0) else None
    if isinstance(op, Neg):
        return nodes[x.inputs[0]] if isinstance(x.op, Neg) else None
    if isinstance(op, Power):
        return x if op.exponent == 1 else None
    if isinstance(op, Transpose):
        return x if op.axes == tuple(range(x.type.rank)) else None
    if isinstance(op, Slice):  # a slice of the operand's type is the operand, or reversed
        return x if all(step > 0 for *_, step in op.cuts) else None
    if isinstance(op, (Reshape, BroadcastTo, Cast)):
        return x
    return x if isinstance(op, Concat) and len(operands) == 1 else None


def _is_all(node: Node, number: int) -> bool:
    """Return whether a constant, not a frozen weight, is this number everywhere; -0.0 is not 0."""
    if not isinstance(node.op, Constant) or node.op.label:
        return False
    array = node.op.array()
    return array.size <= 4096 and bool(np.all(array == number) and not np.any(np.signbit(array)))


def _joined(node: Node, x: Node) -> Node:
    """Join two reshapes, or two transposes, into one; return other nodes as they are."""
    op = node.op
    if isinstance(op, Reshape) and isinstance(x.op, Reshape):
        return Node(node.name, op, x.inputs, node.type, node.locs)
    if isinstance(op, Transpose) and isinstance(x.op, Transpose):
        axes = tuple(x.op.axes[axis] for axis in op.axes)
        return Node(node.name, Transpose(axes), x.inputs, node.type, node.locs)
    return node
