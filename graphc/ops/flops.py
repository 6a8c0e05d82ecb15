"""The operations that an op stands for, besides those of its matrix product and in it.

The counts are those of the mathematics, not of an implementation.  A multiply-add is two
operations; any other function of an element, whether exp or max, is one.
"""

from __future__ import annotations

from math import prod

from graphc.ir.op import Op
from graphc.ir.tensor_type import TensorType, shape_at
from graphc.ops.conv import Convolution
from graphc.ops.pool import Pooling

PRODUCTS = {"affine": 1, "affine_relu": 2, "matmul": 0, "matmul_relu_grad": 1}
"""The matrix products, and their further operations on each element of the result."""

OPERATIONS = {
    "adam_mean": 3,
    "adam_square": 4,
    "adam_step": 6,
    "batchnorm_dgamma": 8,
    "batchnorm_dx": 12,
    "batchnorm_train": 8,
    "log_softmax": 5,
    "momentum": 2,
    "nesterov_step": 4,
    "normalize": 4,
    "normalize_dgamma": 4,
    "normalize_dx": 7,
    "sgd_step": 2,
    "sigmoid": 3,
    "softmax": 4,
    "softmax_rows": 4,
    "softmax_rows_grad": 6,
    "square_sum": 2,
    "svm_rows": 4,
    "svm_rows_grad": 4,
}
"""Operations for each element of the largest operand or result; other ops have one."""

MOVES = (
    "after",
    "broadcast_to",
    "cast",
    "cleared",
    "concat",
    "copy",
    "gather",
    "gather_elements",
    "max_pool_pick",
    "mean_grad",
    "one_hot",
    "pad",
    "pick",
    "reshape",
    "slice",
    "slice_grad",
    "stop_gradient",
    "transpose",
)
"""The ops that compute nothing."""


def op_flops(op: Op, ins: list[TensorType], out: TensorType, n: int) -> tuple[int, int]:
    """Return the operations of an op besides matrix products, and those of its matrix product."""
    size = _size(out, n)
    if op.name in PRODUCTS:
        axis = -1 if getattr(op, "trans_b", False) else -2
        inner = shape_at(ins[1].shape, n)[axis]
        return PRODUCTS[op.name] * size, 2 * size * inner
    if isinstance(op, Convolution):
        return 0, 2 * _multiplications(op, ins, out, n)
    if isinstance(op, Pooling) and op.name not in MOVES:
        places = min(_size(type, n) for type in (*ins, out))
        return (prod(op.kernel) - ("grad" not in op.name)) * places, 0
    if op.name in MOVES:
        return 0, 0
    largest = max([size, *(_size(type, n) for type in ins)])
    return OPERATIONS.get(op.name, 1) * largest, 0


def _multiplications(op: Convolution, ins: list[TensorType], out: TensorType, n: int) -> int:
    """Return the products in a convolution: each number of y sums as many as a unit has weights."""
    w = {"conv": ins[1], "conv_dx": ins[1], "conv_dw": out}[op.name]
    y = {"conv": out, "conv_dx": ins[0], "conv_dw": ins[1]}[op.name]
    return _size(y, n) * prod(shape_at(w.shape[:-1], n))


def _size(type: TensorType, n: int) -> int:
    return prod(shape_at(type.shape, n))
