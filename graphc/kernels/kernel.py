"""The two kinds of fused kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphc.kernels.body import Axis, Body
from graphc.kernels.turned import dense_strides
from graphc.kernels.window import Sizes, Window
from graphc.tensor_type import Dim, Shape, count

CHUNK = 16
"""Threads split rows at multiples of this; a constant, so that results do not depend on it."""
LANES = 16
"""A sum along columns keeps this many partial sums, whatever the machine's vectors hold."""

Split = Literal["rows", "columns", "matrices", "none"]
"""How threads share a kernel: by rows, by columns, by the matrices of a stack, or not at all (the
first thread runs it)."""


@dataclass(frozen=True)
class Turned:
    """What is read of `shape`, and written with its axes in this order."""

    shape: Shape
    axes: tuple[int, ...]


@dataclass(frozen=True)
class Added:
    """The `count` rows of a matrix, each added to the row of the result that its index names.

    One after the other, from 0; indices, of this dtype, are held within the result.
    """

    rows: str
    indices: str
    dtype: str
    count: Dim


@dataclass(frozen=True)
class Loop:
    """The body at each of `rows` x `columns` elements.

    Sums and maxima run along `axis`: "columns" reduces each row to a number, "rows" each
    column.  What depends on a reduction sees its final value.  What is `turned` is copied alone,
    what is `added` is stored alone.

    Where elements are fetched, rows are those of several dimensions: the first one, and then
    `places`.  Walks go along these and the columns.
    """

    rows: Dim
    columns: Dim
    axis: Axis
    body: Body
    split: Split
    places: Sizes = ()
    turned: Turned | None = None
    added: Added | None = None


@dataclass(frozen=True)
class Stack:
    """Products of many matrices: how many along each leading dimension.

    `a` and `b` have the elements from one matrix to the next along each, 0 where one serves all,
    and then those between its rows.  What the body reads and writes at each element lies densely,
    but for the buffer `turned`, which lies as `out` says.
    """

    sizes: Shape
    a: Shape
    b: Shape
    turned: str = ""
    out: Shape = ()


@dataclass(frozen=True)
class Gemm:
    """product(i, j) = sum over p of a(i, p) * b(p, j), and the body at each of m x n elements.

    `a` is stored (m, k), or (k, m) with `trans_a`; `b` (k, n), or (n, k) with `trans_b`.  The sum
    has one accumulator an element, in the order of p, with fused multiply-add.

    With a `window` the matrix that is called (m, k) here, (k, m) with `trans_a`, is that of the
    window over the images `a`.  Then `b` with `trans_b` is stored as the weight of a convolution,
    (offsets, n, channels), and its offsets are taken in reverse.  With groups each has its part
    of the columns: of a pixel a column sees the channels of its group alone, and such a weight
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
    split: Split
    window: Window | None = None
    stack: Stack | None = None


Kernel = Loop | Gemm


def stored(kernel: Gemm, stack: Stack, buffer: str) -> Shape:
    """How the matrices of a result of a stack lie: as those of its factors."""
    if buffer == stack.turned:
        return stack.out
    return dense_strides((*stack.sizes, kernel.m, kernel.n))[:-1]


def space(kernel: Kernel) -> tuple[Dim, Dim]:
    """The rows and columns that a kernel's body runs over."""
    if isinstance(kernel, Gemm):
        above = () if kernel.stack is None else kernel.stack.sizes
        return count((*above, kernel.m)), kernel.n
    return kernel.rows, kernel.columns


def factor_columns(kernel: Gemm) -> dict[str, Dim]:
    """The columns of the two factors, as they are stored, if they are stored as matrices."""
    if kernel.window is not None:
        return {} if kernel.trans_b else {kernel.b: kernel.n}
    return {
        kernel.a: kernel.m if kernel.trans_a else kernel.k,
        kernel.b: kernel.k if kernel.trans_b else kernel.n,
    }
