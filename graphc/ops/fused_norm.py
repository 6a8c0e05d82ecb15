"""Gradients of batch normalisation that passes make, which share what they sum over a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.expr import Axis, Expr, call
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.ops.fused import Fused
from graphc.ops.norm import ByFeature, columns, feature_axes


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
