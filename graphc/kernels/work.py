"""A rough estimate of a kernel's time: enough to distinguish a short program from a long one."""

from __future__ import annotations

from math import prod

from graphc.ir.tensor_type import ITEMSIZE, dim_at
from graphc.kernels.kernel import Gemm, Kernel, ScatterAdd, space

OPERATIONS_A_MICROSECOND = 150_000
BYTES_A_MICROSECOND = 30_000
"""The bytes that one core moves; like the operations above, in round numbers."""
CALL = 0.1
"""The microseconds that a kernel costs however little it does."""


def kernel_microseconds(kernel: Kernel, n: int) -> float:
    """Return the time of a kernel on one core, for a batch of `n` rows."""
    if isinstance(kernel, Gemm):
        m, columns, k = (dim_at(dim, n) for dim in (*space(kernel), kernel.k))
        operations = m * columns * (2 * k + len(kernel.body.steps))
        moved = (m * k + k * columns + m * columns) * ITEMSIZE[kernel.dtype]
        if kernel.window is not None:
            moved //= prod(kernel.window.kernel)
    else:
        size = dim_at(kernel.rows, n) * dim_at(kernel.columns, n)
        operations = size * len(kernel.body.steps)
        moved = size * 4 * len(set((*kernel.body.loads, *kernel.body.written)))
        if isinstance(kernel, ScatterAdd):
            moved += dim_at(kernel.count, n) * dim_at(kernel.columns, n) * 8
    return CALL + max(operations / OPERATIONS_A_MICROSECOND, moved / BYTES_A_MICROSECOND)
