"""The division of kernels among threads: partitions, and a rough estimate of time."""

from __future__ import annotations

from math import prod

from graphc.ir.expr import Axis, Body
from graphc.ir.forms import Product
from graphc.ir.tensor_type import ITEMSIZE, Dim, dim_at
from graphc.kernels.kernel import CHUNK, Gemm, Kernel, Partition, ScatterAdd, space

SHARED = 1 << 14
"""From this many elements of b on, each thread should read only its columns of b."""


def gemm_partition(m: Dim, n: Dim, product: Product, capacity: int) -> Partition:
    """Return the thread partition of a product: by rows or by columns.

    By rows each thread reads all of b, by columns all of a.  By rows is the rule: layers then need
    no barrier between them.  Products are by columns if their rows are too few to share, or if b
    is large and larger than a.  A convolution mostly has fewer columns than a panel: two chunks of
    rows are shared, however short.  Sums over places in groups are by columns,
    since few rows make a sum.
    """
    if product.window is not None and product.window.groups > 1 and product.trans_a:
        return "columns"
    rows, columns, inner = (dim_at(dim, capacity) for dim in (m, n, product.inner))
    by_columns = columns > rows and columns * inner >= SHARED
    few = 2 * CHUNK if product.window is None else CHUNK + 1
    return "columns" if by_columns or rows < few else "rows"


def loop_partition(rows: Dim, columns: Dim, axis: Axis, body: Body, capacity: int) -> Partition:
    """Return the partition by an axis that the kernel does not reduce."""
    reduces = any(step.op in ("sum", "max") for step in body.steps)
    stored = {store.broadcast for store in body.stores}
    if axis == "rows" and (reduces or "column" in stored):
        return "columns"
    if dim_at(rows, capacity) >= 2 * CHUNK and stored <= {"each", "row"}:
        return "rows"
    if rows == 1 and stored == {"each"} and not reduces and dim_at(columns, capacity) > 1:
        return "columns"
    return "none"


OPERATIONS_A_MICROSECOND = 150_000
BYTES_A_MICROSECOND = 30_000
"""The bytes that one core moves; like the operations above, in round numbers."""
CALL = 0.1
"""The fixed cost of a kernel in microseconds."""


def kernel_microseconds(kernel: Kernel, n: int) -> float:
    """Estimate the time of a kernel on one core, for a batch of `n` rows."""
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
