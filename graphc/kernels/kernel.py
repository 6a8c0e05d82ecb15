"""The kinds of fused kernel: loops and matrix products, with permutations and scatter-adds.

A program is a list of them over buffers.  All backends run this form, and fusion, barriers, memory
and the certificate know only it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphc.ir.expr import Axis, Body
from graphc.ir.forms import Product, Sizes, Window
from graphc.ir.tensor_type import Dim, Shape, count, dim_at
from graphc.kernels.iteration_space import dense_strides

CHUNK = 16
"""Threads share rows in chunks of so many; a constant, so that results are always the same."""
LANES = 16
"""The number of partial sums of a sum over columns, whatever the machine's vectors hold."""

Partition = Literal["rows", "columns", "matrices", "none"]
"""The thread partition of a kernel: by rows, by columns, by the matrices of a stack, or none (the
first thread runs it)."""


@dataclass(frozen=True)
class Loop:
    """The body, run at each of `rows` x `columns` elements.

    Sums and maxima reduce `axis`: "columns" reduces each row to a number, "rows" each
    column.  Steps that depend on a reduction read its final value.

    If elements are gathered, rows have several dimensions: the first one, and then `places`.  The
    access maps have these and the columns as dimensions.
    """

    rows: Dim
    columns: Dim
    axis: Axis
    body: Body
    partition: Partition
    places: Sizes = ()


@dataclass(frozen=True, kw_only=True)
class Permutation(Loop):
    """A copy of a value of `shape` with its axes in the order `axes`; the body only copies."""

    shape: Shape
    axes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ScatterAdd(Loop):
    """A scatter-add: each of `count` rows of a matrix is added to the result's row of its index.

    They are added one after the other, from 0; the indices are clipped to the result.  The body
    only stores the sums.
    """

    source: str
    """The buffer of the rows."""
    indices: str
    index_dtype: str
    count: Dim


@dataclass(frozen=True)
class Stack:
    """Products of many matrices: their number in each leading dimension.

    `a` and `b` have the elements from one matrix to the next in each, 0 if one serves all, and then
    the elements from row to row.  Values that the body reads and writes at each element are
    contiguous, except the buffer `permuted`, whose strides are `out`.
    """

    sizes: Shape
    a: Shape
    b: Shape
    permuted: str = ""
    out: Shape = ()


@dataclass(frozen=True)
class Gemm:
    """A matrix product, and the body, run at each of its m x n elements.

    product(i, j) = sum over p of a(i, p) * b(p, j)

    `a` is stored (m, k), or (k, m) with `trans_a`; `b` (k, n), or (n, k) with `trans_b`.  The sum
    has one accumulator an element, in the order of p, with fused multiply-add.

    With a `window` the matrix that is called (m, k) here, (k, m) with `trans_a`, is that of the
    window over the images `a`.  Then `b` with `trans_b` is stored as the weight of a convolution,
    (offsets, n, channels), and its offsets are read in reverse.  With groups each has its part
    of the columns: a column reads only the channels of its group in a pixel, and such a weight
    is stored (offsets, n / groups, groups * channels).

    With a `stack` m, n and k are those of each product.
    """

    m: Dim
    n: Dim
    k: Dim
    a: str
    b: str
    trans_a: bool
    trans_b: bool
    dtype: str
    body: Body
    partition: Partition
    window: Window | None = None
    stack: Stack | None = None


Kernel = Loop | Gemm


def stored(kernel: Gemm, stack: Stack, buffer: str) -> Shape:
    """Return the strides of the matrices of a stack's result, in the form of `Stack.a`."""
    if buffer == stack.permuted:
        return stack.out
    return dense_strides((*stack.sizes, kernel.m, kernel.n))[:-1]


def space(kernel: Kernel) -> tuple[Dim, Dim]:
    """Return the rows and columns that a kernel's body runs over."""
    if isinstance(kernel, Gemm):
        above = () if kernel.stack is None else kernel.stack.sizes
        return count((*above, kernel.m)), kernel.n
    return kernel.rows, kernel.columns


def factor_columns(kernel: Gemm) -> dict[str, Dim]:
    """Return the columns of each factor that is stored as a matrix, as stored."""
    if kernel.window is not None:
        return {} if kernel.trans_b else {kernel.b: kernel.n}
    return {
        kernel.a: kernel.m if kernel.trans_a else kernel.k,
        kernel.b: kernel.k if kernel.trans_b else kernel.n,
    }


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
    stored = {store.broadcast for store in body.stores}
    if axis == "rows" and ("column" in stored or _reduces(body)):
        return "columns"
    if dim_at(rows, capacity) >= 2 * CHUNK and stored <= {"each", "row"}:
        return "rows"
    if rows == 1 and stored == {"each"} and dim_at(columns, capacity) > 1 and not _reduces(body):
        return "columns"
    return "none"


def _reduces(body: Body) -> bool:
    return any([step.op in ("sum", "max") for step in body.steps])
