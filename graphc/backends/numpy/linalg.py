"""Kernels of matrix products: `ndarray.dot`, which passes transposed views to BLAS as they are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod

import numpy as np

from graphc.backends.numpy.elementwise import integers
from graphc.backends.numpy.kernel import Call, Kernel, number
from graphc.ir.op import Array, Op
from graphc.ops.fused import MatMulReluGrad
from graphc.ops.linalg import MatMul


def product(a: Array, b: Array, out: Array, trans_a: bool, trans_b: bool) -> Call:
    """Return one call that computes a @ b."""
    left = a.swapaxes(-1, -2) if trans_a else a
    right = b.swapaxes(-1, -2) if trans_b else b
    if right.ndim > 2 or (left.ndim > 2 and trans_a):
        return partial(np.matmul, left, right, out=out)
    if left.ndim > 2:
        rows = prod(left.shape[:-1])
        left, out = left.reshape(rows, left.shape[-1]), out.reshape(rows, out.shape[-1])
    return partial(left.dot, right, out)


def matmul(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls for a @ b over the last two axes, either one transposed."""
    assert isinstance(op, MatMul)
    a, b = ins
    return (product(a, b, out, op.trans_a, op.trans_b),)


def affine(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls for x @ weight + bias."""
    x, weight, bias = ins
    return partial(x.dot, weight, out), partial(np.add, out, bias, out)


def affine_relu(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls for max(x @ weight + bias, 0)."""
    clip = partial(out.clip, number(0, out), number(np.inf, out), out)
    return (*affine(op, ins, out, scratch), clip)


def matmul_relu_grad(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls that compute a @ b where the relu's result is above 0, else 0."""
    assert isinstance(op, MatMulReluGrad)
    a, b, result = ins
    mask, factor = scratch
    bits = integers(out)
    return (
        partial(np.greater, result, number(0, result), mask),  # `out` may be its memory
        product(a, b, out, op.trans_a, op.trans_b),
        partial(np.copyto, factor.view(bits), mask),
        partial(np.multiply, out.view(bits), factor.view(bits), out.view(bits)),
    )


LINALG: dict[str, Kernel] = {
    "matmul": matmul,
    "affine": affine,
    "affine_relu": affine_relu,
    "matmul_relu_grad": matmul_relu_grad,
}
