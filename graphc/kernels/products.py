"""The ops that are matrix products: of matrices, or of a window over images and a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.op import Op
from graphc.ir.tensor_type import Dim, Shape, TensorType
from graphc.kernels.matrix import by_last
from graphc.kernels.window import Sizes, Window
from graphc.ops.affine import Affine
from graphc.ops.conv import ConvDw, ConvDx, Convolution
from graphc.ops.fused import AffineRelu, MatMulReluGrad
from graphc.ops.linalg import MatMul

PRODUCTS = (Affine, AffineRelu, MatMul, MatMulReluGrad)


@dataclass(frozen=True, slots=True)
class Product:
    """The form of an op as a matrix product of its first two operands: see `Gemm`."""

    inner: Dim
    trans_a: bool = False
    trans_b: bool = False
    window: Window | None = None
    stacked: bool = False
    """Whether the operands are many matrices, and not one."""


def product_of(op: Op, ins: Sequence[TensorType]) -> Product | None:
    """Return the form of an op as a matrix product, or None if it has no such kernel."""
    if isinstance(op, Convolution):
        return _convolution(op, ins)
    if not isinstance(op, PRODUCTS):
        return None
    a, b = ins[:2]
    trans_a = bool(getattr(op, "trans_a", False))
    trans_b = bool(getattr(op, "trans_b", False))
    inner = a.shape[-2 if trans_a else -1]
    if b.rank > 2 or (a.rank > 2 and trans_a):
        counted = all(isinstance(dim, int) for dim in (*a.shape[-2:], *b.shape[-2:]))
        return Product(inner, trans_a, trans_b, stacked=True) if counted else None
    columns = b.shape[0 if trans_b else 1]
    counted = all(isinstance(dim, int) for dim in (a.shape[-1], b.shape[1], columns))
    return Product(inner, trans_a, trans_b) if counted else None


def _convolution(op: Convolution, ins: Sequence[TensorType]) -> Product:
    """Return the form of a convolution or a gradient; with single pixels it is of matrices."""
    if isinstance(op, ConvDx):
        dy, w = ins
        kernel, space = _sizes(w.shape[:-2]), _sizes(op.shape[1:-1])
        if _single(op, kernel):
            return Product(dy.shape[-1], trans_b=True)
        window = _spread(op, dy.shape, kernel, space)
        return Product(window.depth, trans_b=True, window=window)
    if isinstance(op, ConvDw):
        x, dy = ins
        rows, kernel = by_last(dy.shape)[0], _sizes(op.shape[:-2])
        if _single(op, kernel):
            return Product(rows, trans_a=True)
        return Product(rows, trans_a=True, window=_met(op, x.shape, kernel, dy.shape))
    x, w = ins
    kernel = _sizes(w.shape[:-2])
    if _single(op, kernel):
        return Product(w.shape[-2])
    window = _met(op, x.shape, kernel, op.infer(ins).shape)
    return Product(window.depth, window=window)


def _single(op: Convolution, kernel: Sizes) -> bool:
    return op.groups == 1 and set(kernel) == set(op.stride) == {1}


def _met(op: Convolution, x: Shape, kernel: Sizes, y: Shape) -> Window:
    """Return the pixels that a convolution meets."""
    none, one = (0,) * len(kernel), (1,) * len(kernel)
    (channels,) = _sizes(x[-1:])
    how = kernel, _sizes(y[1:-1]), op.stride, op.dilation, none, one, op.groups
    return Window(_sizes(x[1:-1]), channels // op.groups, *how)


def _spread(op: Convolution, dy: Shape, kernel: Sizes, space: Sizes) -> Window:
    """Return the places whose filters reach a pixel.

    It is a convolution of results that lie `stride` apart, with the filter in reverse.
    """
    one = (1,) * len(kernel)
    before = tuple((k - 1) * d for k, d in zip(kernel, op.dilation, strict=True))
    (channels,) = _sizes(dy[-1:])
    how = kernel, space, one, op.dilation, before, op.stride, op.groups
    return Window(_sizes(dy[1:-1]), channels // op.groups, *how)


def _sizes(dims: Sequence[Dim]) -> Sizes:
    return tuple(dim for dim in dims if isinstance(dim, int))
