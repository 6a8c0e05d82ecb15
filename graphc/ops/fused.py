"""Ops that passes make after Backward, so that none needs a gradient rule.

Each does the work of several ops; `after` is a control dependency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.ir.build import Builder, Value
from graphc.ir.expr import Expr
from graphc.ir.graph import Node
from graphc.ir.op import Array, Cotangents, Op
from graphc.ir.tensor_type import TensorType
from graphc.ops.linalg import Affine, MatMul, MatrixProduct
from graphc.ops.select import Relu, ReluGrad


class Fused(Op, base=True):
    """The base of ops that a pass makes from several others."""

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Raise GraphError: a pass makes these ops once all gradients are there."""
        raise b.error(
            self,
            "a fused op is not differentiated\nplace passes that fuse after 'backward'",
            ins,
            out.name,
            out.node.locs,
        )


class AffineRelu(Fused, MatrixProduct):
    """The relu of an affine map: max(x @ weight + bias, 0)."""

    roles = ("x", "weight", "bias")
    operations = 2

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of the affine map."""
        return Affine(order=self.order).infer(ins)

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return max(x @ weight + bias, 0)."""
        return np.asarray(np.maximum(Affine(order=self.order).reference(ins), 0))

    def epilogue(self, product: Expr, ins: Sequence[Expr]) -> Expr:
        """Return an element of the product with its bias, after the relu."""
        return Relu().scalar([Affine().epilogue(product, ins)], "columns")


@dataclass(frozen=True)
class MatMulReluGrad(Fused, MatrixProduct):
    """a @ b, either one transposed, where `out` > 0, else 0; `out` is the relu's result."""

    name = "matmul_relu_grad"
    roles = ("a", "b", "out")
    operations = 1
    inplace = (2,)
    trans_a: bool = False
    trans_b: bool = False

    @property
    def _product(self) -> MatMul:
        return MatMul(self.trans_a, self.trans_b, order=self.order)

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of the product, which is that of `out`."""
        product = self._product.infer(ins[:2])
        return ReluGrad().infer([ins[2], product])

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return the product where `out` is above 0."""
        return ReluGrad().reference([ins[2], self._product.reference(ins[:2])])

    def epilogue(self, product: Expr, ins: Sequence[Expr]) -> Expr:
        """Return an element of the product where that of `out` is above 0, else 0."""
        return ReluGrad().scalar([ins[0], product], "columns")


class After(Fused):
    """x itself, which its users may read only once `event` has run: a control dependency.

    It delays nodes that are recomputed.  They read other names than the original nodes, so that the
    two are not merged, and no order can place them before the event.
    """

    takes_pairs = True
    alias = True
    is_control = True
    roles = ("x", "event")
    only_moves = True
    operations = 0

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of x."""
        return ins[0]

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return x."""
        return ins[0]


def is_event_of(name: str, reader: Node) -> bool:
    """Return whether a node waits for the value `name` without reading it."""
    return reader.op.is_control and reader.inputs[0] != name
