"""A group of nodes to a kernel: their expressions joined, and what others read stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

from graphc.graph import Node
from graphc.kernels.body import Axis, Span
from graphc.kernels.expr import BodyBuilder, Expr
from graphc.kernels.fit import product_of
from graphc.kernels.groups import Group, Grouping
from graphc.kernels.kernel import Gemm, Kernel, Loop
from graphc.kernels.matrix import matrix
from graphc.kernels.split import gemm_split, loop_split


class Epilogue(Protocol):
    """A matrix product followed by something for each element."""

    def epilogue(self, product: Expr, ins: list[Expr]) -> Expr:
        """The result from the product and the operands after the two factors."""


def fused(group: Group, grouping: Grouping, stored: Callable[[str], bool], capacity: int) -> Kernel:
    """The kernel of a group; `stored` tells of a node whether anything outside reads it."""
    fusion = _Fusion(group, grouping)
    for node in group.nodes:
        fusion.add(node)
    for node in group.nodes:
        if stored(node.name):
            fusion.builder.store(fusion.values[node.name], node.name, group.roles[node.name])
    body = fusion.builder.body()
    if group.product is None:
        axis: Axis = group.axis or "columns"
        rows, columns = group.space
        return Loop(rows, columns, axis, body, loop_split(rows, columns, axis, body, capacity))
    product = group.product
    ins = [grouping.type(operand) for operand in product.inputs]
    sides = product_of(product.op, ins)
    assert sides is not None
    (m, n), inner = group.space, ins[0].shape[0 if sides[0] else 1]
    a, b = (grouping.bytes_of(operand) for operand in product.inputs[:2])
    split = gemm_split(m, capacity)
    return Gemm(m, n, inner, a, b, *sides, product.type.dtype, body, split)


class _Fusion:
    """The expressions of a group in the making."""

    def __init__(self, group: Group, grouping: Grouping) -> None:
        self.group, self.grouping = group, grouping
        self.builder = BodyBuilder()
        self.values: dict[str, Expr] = {}

    def add(self, node: Node) -> None:
        """The expression of one more node."""
        spans = self.group.operands[node.name]
        if node is self.group.product:
            product = self.builder.product(node.type.dtype)
            extra = [self._operand(o, s) for o, s in zip(node.inputs[2:], spans[2:], strict=True)]
            value = cast("Epilogue", node.op).epilogue(product, extra)
        else:
            ins = [self._operand(o, s) for o, s in zip(node.inputs, spans, strict=True)]
            value = node.op.scalar(ins, self.group.axis or self._free_axis(node))
        self.values[node.name] = value

    def _free_axis(self, node: Node) -> Axis:
        """The axis that a node's own counts are taken along where nothing is reduced."""
        return "columns" if matrix(node.type.shape)[0] == 1 else "rows"

    def _operand(self, name: str, span: Span) -> Expr:
        root = self.grouping.bytes_of(name)
        if root in self.values:
            return self.values[root]
        if name in self.grouping.inlined:
            node = self.grouping.graph[name]
            ins = [self._operand(operand, "one") for operand in node.inputs]
            axis: Axis = "columns" if self.group.space[0] == 1 else "rows"
            return node.op.scalar(ins, axis)
        return self.builder.load(root, span, self.grouping.type(name).dtype)
