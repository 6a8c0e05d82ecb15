"""Kernels of normalisation: softmax over an axis, batchnorm over the rows.

For batchnorm M is the number of values of a feature: rows, for images times height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from graphc.backends.numpy.kernel import Call, Kernel, number
from graphc.ir.op import Array, Op
from graphc.ops.functions import AlongAxis
from graphc.ops.fused import NormalizeDgamma, NormalizeDx
from graphc.ops.norm import (
    BatchNormDgamma,
    BatchNormDx,
    BatchNormTrain,
    Normalize,
    columns,
    feature_axes,
)


def softmax(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls for e**(x - max), divided by its sum."""
    assert isinstance(op, AlongAxis)
    (x,), (row,) = ins, scratch
    return (
        partial(np.maximum.reduce, x, op.axis, None, row, True),
        partial(np.subtract, x, row, out),
        partial(np.exp, out, out),
        partial(np.add.reduce, out, op.axis, None, row, True),
        partial(np.true_divide, out, row, out),
    )


def causal_softmax(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls for the softmax of x with minus infinity above the diagonal."""
    (x,), (row, later, queries, keys) = ins, scratch
    return (
        partial(np.greater, keys, queries[:, None], later),
        partial(np.copyto, out, x),
        partial(np.copyto, out, number(-np.inf, out), where=later),
        partial(np.maximum.reduce, out, -1, None, row, True),
        partial(np.subtract, out, row, out),
        partial(np.exp, out, out),
        partial(np.add.reduce, out, -1, None, row, True),
        partial(np.true_divide, out, row, out),
    )


def log_softmax(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls for x - max, less the logarithm of the sum of its exponentials."""
    assert isinstance(op, AlongAxis)
    (x,), (row, work) = ins, scratch
    return (
        partial(np.maximum.reduce, x, op.axis, None, row, True),
        partial(np.subtract, x, row, out),
        partial(np.exp, out, work),
        partial(np.add.reduce, work, op.axis, None, row, True),
        partial(np.log, row, row),
        partial(np.subtract, out, row, out),
    )


def _sums(x: Array, ones: Array, out: Array) -> Call:
    """Return a call that sums each feature."""
    if x.ndim == 2:
        return partial(ones.dot, x, out)
    return partial(np.add.reduce, x, feature_axes(x.ndim), None, out)


def _means(x: Array, ones: Array, out: Array) -> Sequence[Call]:
    """Return calls that compute the mean of each feature."""
    return _sums(x, ones, out), partial(np.true_divide, out, _share(x), out)


def _share(x: Array) -> Array:
    """Return M, as a number of x's dtype."""
    return number(x.size // x.shape[1], x)


def _centre(x: Array, vector: Array, ones: Array, out: Array) -> Sequence[Call]:
    """Return calls: out = x - mean(x)."""
    return *_means(x, ones, vector), partial(np.subtract, x, columns(vector, x.ndim), out)


def _variance(centred: Array, ones: Array, work: Array, out: Array, eps: float) -> Sequence[Call]:
    """Return calls: out = mean(centred**2) + eps; `work` is overwritten."""
    return (
        partial(np.square, centred, work),
        *_means(work, ones, out),
        partial(np.add, out, number(eps, out), out),
    )


def batchnorm_train(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls for gamma / std * (x - mean) + beta by the batch's own statistics."""
    assert isinstance(op, BatchNormTrain)
    x, gamma, beta = ins
    work, vector, ones = scratch
    return (
        *_centre(x, vector, ones, out),
        *_variance(out, ones, work, vector, op.eps),
        partial(np.sqrt, vector, vector),
        partial(np.true_divide, gamma, vector, vector),
        partial(np.multiply, out, columns(vector, x.ndim), out),
        partial(np.add, out, columns(beta, x.ndim), out),
    )


def batchnorm_dgamma(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls for sum(dout * (x - mean)) / std."""
    assert isinstance(op, BatchNormDgamma)
    x, dout = ins
    centred, work, vector, ones = scratch
    return (
        *_centre(x, vector, ones, centred),
        *_variance(centred, ones, work, vector, op.eps),
        partial(np.sqrt, vector, vector),
        partial(np.multiply, centred, dout, work),
        _sums(work, ones, out),
        partial(np.true_divide, out, vector, out),
    )


def batchnorm_dx(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls that compute dx by the batch's own statistics, for c = x - mean.

    dx = gamma / std * (dout - mean(dout) - c * mean(dout * c) / std**2)
    """
    assert isinstance(op, BatchNormDx)
    x, gamma, dout = ins
    work, vector, slope, ones = scratch
    rank = x.ndim
    return (
        *_centre(x, vector, ones, out),
        *_variance(out, ones, work, vector, op.eps),
        partial(np.multiply, out, dout, work),
        *_means(work, ones, slope),
        partial(np.true_divide, slope, vector, slope),
        partial(np.multiply, out, columns(slope, rank), out),
        partial(np.subtract, dout, out, out),
        *_means(dout, ones, slope),
        partial(np.subtract, out, columns(slope, rank), out),
        partial(np.sqrt, vector, vector),
        partial(np.true_divide, gamma, vector, vector),
        partial(np.multiply, out, columns(vector, rank), out),
    )


def normalize(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls for gamma / std * (x - mean) + beta with given statistics."""
    assert isinstance(op, Normalize)
    x, mean, var, gamma, beta = ins
    (vector,) = scratch
    return (
        *_std(var, op.eps, vector),
        partial(np.true_divide, gamma, vector, vector),
        partial(np.subtract, x, columns(mean, x.ndim), out),
        partial(np.multiply, out, columns(vector, x.ndim), out),
        partial(np.add, out, columns(beta, x.ndim), out),
    )


def _std(var: Array, eps: float, out: Array) -> Sequence[Call]:
    return partial(np.add, var, number(eps, var), out), partial(np.sqrt, out, out)


def normalize_dgamma(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls for sum(dout * (x - mean)) / std with given statistics."""
    assert isinstance(op, NormalizeDgamma)
    x, mean, var, dout = ins
    work, vector, ones = scratch
    return (
        partial(np.subtract, x, columns(mean, x.ndim), work),
        partial(np.multiply, work, dout, work),
        _sums(work, ones, out),
        *_std(var, op.eps, vector),
        partial(np.true_divide, out, vector, out),
    )


def normalize_dx(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls for gamma / std * (dout - dbeta / M - (x - mean) * dgamma / (M * std))."""
    assert isinstance(op, NormalizeDx)
    x, mean, var, gamma, dout, dgamma, dbeta = ins
    std, vector = scratch
    rank, share = x.ndim, _share(x)
    return (
        *_std(var, op.eps, std),
        partial(np.true_divide, dgamma, share, vector),
        partial(np.true_divide, vector, std, vector),
        partial(np.subtract, x, columns(mean, rank), out),
        partial(np.multiply, out, columns(vector, rank), out),
        partial(np.subtract, dout, out, out),
        partial(np.true_divide, dbeta, share, vector),
        partial(np.subtract, out, columns(vector, rank), out),
        partial(np.true_divide, gamma, std, std),
        partial(np.multiply, out, columns(std, rank), out),
    )


NORM: dict[str, Kernel] = {
    "softmax": softmax,
    "causal_softmax": causal_softmax,
    "log_softmax": log_softmax,
    "batchnorm_train": batchnorm_train,
    "batchnorm_dgamma": batchnorm_dgamma,
    "batchnorm_dx": batchnorm_dx,
    "normalize": normalize,
    "normalize_dgamma": normalize_dgamma,
    "normalize_dx": normalize_dx,
}
