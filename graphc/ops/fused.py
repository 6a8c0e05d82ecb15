"""Ops that passes make after Backward, so that none needs a gradient rule.

Each does the work of several ops; `after` is a control dependency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.ir.build import Builder, Value
from graphc.ir.expr import Axis, Expr, call
from graphc.ir.graph import Node
from graphc.ir.op import Array, Cotangents, Op
from graphc.ir.tensor_type import TensorType
from graphc.ops.linalg import Affine, MatMul, MatrixProduct
from graphc.ops.norm import ByFeature, columns, feature_axes
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


class NormalizeDgamma(Fused, ByFeature):
    """batchnorm_dgamma for given batch statistics: sum(dout * xhat) for each feature.

    xhat = (x - mean) / sqrt(var + eps).
    """

    roles = ("x", "mean", "var", "dout")
    operations = 4
    kinds = ("each", "column", "column", "each")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of a vector with a number for each feature."""
        return super().infer(ins).with_shape(ins[1].shape)

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return the sum of dout * xhat over all axes but that of the features."""
        x, average, variance, dout = ins
        xhat, _ = _xhat_and_std(x, average, variance, self.eps)
        return np.asarray((dout * xhat).sum(axis=feature_axes(x.ndim)))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        """Return the sum over the rows, which is divided by the standard deviation once."""
        x, average, variance, dout = ins
        return (dout * (x - average)).sum(axis) / call("sqrt", variance + self.eps)


class NormalizeDx(Fused, ByFeature):
    """batchnorm_dx for given batch statistics and both sums.

    gamma / std * (dout - dbeta / M - xhat * dgamma / M), for M numbers a feature.
    """

    roles = ("x", "mean", "var", "gamma", "dout", "dgamma", "dbeta")
    inplace = (0,)
    operations = 7
    kinds = ("each", "column", "column", "column", "each", "column", "column")
    iterates = "elements"

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return the cotangent of x by the formula."""
        x, average, variance, gamma, dout, dgamma, dbeta = ins
        xhat, std = _xhat_and_std(x, average, variance, self.eps)
        share = x.dtype.type(x.size // x.shape[1])
        slope = dout - columns(dbeta / share, x.ndim) - xhat * columns(dgamma / share, x.ndim)
        return np.asarray(columns(gamma, x.ndim) / std * slope)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        """Return an element of the cotangent from those of x and dout and its feature's numbers."""
        x, average, variance, gamma, dout, dgamma, dbeta = ins
        rows = x.builder.size("rows", x.dtype)
        std = call("sqrt", variance + self.eps)
        slope = dout - dbeta / rows - (x - average) * (dgamma / rows / std)
        return slope * (gamma / std)


def _xhat_and_std(x: Array, average: Array, variance: Array, eps: float) -> tuple[Array, Array]:
    """Return x, normalised, and the standard deviations as columns."""
    std = np.sqrt(columns(variance, x.ndim) + x.dtype.type(eps))
    return (x - columns(average, x.ndim)) / std, std


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
