"""The kinds of fused kernel, each a type of its own; a program is a list of them over buffers.

    Loop          a body of scalar steps at each of rows x columns; reductions, indexed loads
    Permutation   a copy with the axes in another order
    ScatterAdd    rows added by index
    Gemm          a matrix product, with a body as epilogue
    BatchedGemm   products of many matrices
    Convolution   a product whose left matrix is a window over images
    Chain         kernels that run one after the other for each matrix of a stack

Fusion, barriers, memory, the certificate and all backends know only this form, and ask the kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal, NamedTuple, Self

from graphc.ir.expr import Axis, Body, Step, Store
from graphc.ir.forms import Product, Sizes, TermOrder, Window, WindowProduct
from graphc.ir.tensor_type import ORDERED, Dim, Shape, count, dim_at, divided
from graphc.kernels.iteration_space import Space

CHUNK = 16
"""Threads share rows in chunks of so many; a constant, so that results are always the same."""
LANES = 16
"""The number of partial sums of a sum over columns, whatever the machine's vectors hold."""

Partition = Literal["rows", "columns", "matrices", "none"]
"""The thread partition of a kernel: by rows, by columns, by the matrices of a stack, or none (the
first thread runs it)."""


class Operand(NamedTuple):
    """A buffer that a kernel reads by itself, besides what the steps of its body load and fetch.

    An element of the result reads the row of a left factor, the column of a right one, any of the
    first `elements` of a window, or any of the whole buffer.
    """

    buffer: str
    part: Literal["left", "right", "window", "whole"]
    elements: Dim = 0


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

    @property
    def space(self) -> Space:
        """The rows and columns that the body runs over."""
        return self.rows, self.columns

    @property
    def first(self) -> Dim:
        """The first dimension of the rows: their number divided by that of `places`."""
        return divided(self.rows, prod(self.places))

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The buffers that are read besides those that the body names."""
        return ()

    def renamed(self, names: Mapping[str, str]) -> Self:
        """Return the kernel with other names of its buffers."""
        return replace(self, body=self.body.renamed(names))


@dataclass(frozen=True, kw_only=True)
class Permutation(Loop):
    """A copy of a value of `shape` with its axes in the order `axes`; the body only copies."""

    shape: Shape
    axes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ScatterAdd(Loop):
    """A scatter-add: each of `count` rows of a matrix is added to the result's row of its index.

    They are added in order, from 0; the indices are clipped to the result.  The body only stores
    the sums.
    """

    source: str
    """The buffer of the rows."""
    indices: str
    index_dtype: str
    count: Dim

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The rows that are added, and the index of each."""
        rows = Operand(self.source, "window", count((self.count, self.columns)))
        return rows, Operand(self.indices, "window", self.count)

    def renamed(self, names: Mapping[str, str]) -> Self:
        """Return the kernel with other names of its buffers."""
        one = super().renamed(names)
        return replace(one, source=names[self.source], indices=names[self.indices])


@dataclass(frozen=True)
class Gemm:
    """A matrix product, and the body, run at each of its m x n elements.

    product(i, j) = sum over p of a(i, p) * b(p, j)

    `a` is stored (m, k), or (k, m) with `trans_a`; `b` (k, n), or (n, k) with `trans_b`.  The sum
    has one accumulator an element, in the order of p, with fused multiply-add.  Sums of `dtype`
    int32 are of int8 factors, and exact in any order.  Those of factors of `ORDERED` are float32,
    and their terms are added in the given order: see `graphc/features/precision/bfloat16.py`.
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
    order: TermOrder | None = field(default=None, kw_only=True)
    """The order in which terms are added; None for factors of another dtype than `ORDERED`."""

    @property
    def space(self) -> Space:
        """The rows and columns that the body runs over."""
        return self.m, self.n

    @property
    def places(self) -> Shape:
        """The dimensions of a row after the first."""
        return ()

    @property
    def ordered(self) -> bool:
        """True if terms have an order, and factors are of `ORDERED`."""
        return self.order is not None

    @property
    def factor_dtype(self) -> str:
        """The dtype of both factors."""
        if self.ordered:
            return ORDERED
        return "int8" if self.dtype == "int32" else self.dtype

    @property
    def run(self) -> int | None:
        """The number of terms within which pairs or blocks are counted; None means all."""
        return None

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The two factors, as the matrix product reads them."""
        return Operand(self.a, "left"), Operand(self.b, "right")

    @property
    def factor_spaces(self) -> tuple[Space, Space]:
        """The rows and columns of each factor, as stored."""
        a = (self.k, self.m) if self.trans_a else (self.m, self.k)
        return a, ((self.n, self.k) if self.trans_b else (self.k, self.n))

    @property
    def factor_columns(self) -> dict[str, Dim]:
        """The columns of each factor that is stored as a matrix."""
        (_, of_a), (_, of_b) = self.factor_spaces
        return {self.a: of_a, self.b: of_b}

    def renamed(self, names: Mapping[str, str]) -> Self:
        """Return the kernel with other names of its buffers."""
        return replace(self, a=names[self.a], b=names[self.b], body=self.body.renamed(names))


@dataclass(frozen=True)
class BatchedGemm(Gemm):
    """Products of many matrices, `sizes` of them in each leading dimension; m, n, k are of each.

    `strides_a` and `strides_b` have the elements from one matrix to the next in each dimension, 0
    if one serves all, and then the elements from row to row.  So has each of `strides_out`, one
    for each store of the body.  Values that the body loads at each element are contiguous.
    """

    sizes: Shape
    strides_a: Shape
    strides_b: Shape
    strides_out: tuple[Shape, ...]

    @property
    def space(self) -> Space:
        """The rows of all matrices, below each other, and the columns."""
        return count((*self.sizes, self.m)), self.n

    @property
    def places(self) -> Shape:
        """The dimensions of a row after the first."""
        return (*self.sizes, self.m)[1:]

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The two factors, of which a thread may read any part."""
        return Operand(self.a, "whole"), Operand(self.b, "whole")


@dataclass(frozen=True)
class Convolution(Gemm):
    """A product whose left matrix is that of a window over the images `a`.

    It is (m, k), or (k, m) with `trans_a`.  With `trans_b`, `b` is stored as the weight of a
    convolution, (offsets, n, channels), and its offsets are read in reverse.  With groups each
    has its part of the columns: a column reads only the channels of its group in a pixel, and such
    a weight is stored (offsets, n / groups, groups * channels).  Pairs and blocks of
    ordered terms are those of the channels of each offset.  With `trans_a` blocks are those of the
    places of an image; in the order of pairs terms are added one after the other, since places side
    by side may not be pixels side by side.
    """

    window: Window

    @property
    def run(self) -> int | None:
        """The number of terms within which pairs or blocks are counted."""
        if not self.trans_a:
            return self.window.channels
        return 1 if self.order == "pairs" else self.window.count

    @property
    def images(self) -> Dim:
        """The number of images."""
        return divided(self.k if self.trans_a else self.m, self.window.count)

    @property
    def places(self) -> Shape:
        """The places of an image, if the rows are places."""
        return () if self.trans_a else (self.window.count,)

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The images, read through the window, and the other factor."""
        elements = count((self.images, self.window.pixels))
        return Operand(self.a, "window", elements), Operand(self.b, "right")

    @property
    def factor_columns(self) -> dict[str, Dim]:
        """The columns of the right factor if it is stored as a matrix."""
        return {} if self.trans_b else {self.b: self.n}


class Private(NamedTuple):
    """A value of which a thread holds one matrix, `start` bytes into its share of a workspace."""

    buffer: str
    start: int
    matrix: tuple[int, int]
    dtype: str


@dataclass(frozen=True)
class Chain:
    """Kernels that one thread runs one after the other for a matrix, for each of a stack.

    `sizes` are the leading dimensions of the stack.  The `kernels` are those of the whole stack,
    and so is what they mean; `graphc/kernels/stack.py` has those of one matrix.  Values that only
    they read are `private`: each of `threads` threads has `share` bytes of the workspace, which
    hold one matrix of each.  More threads have no part.
    """

    sizes: Shape
    kernels: tuple[Loop | BatchedGemm, ...]
    private: tuple[Private, ...]
    workspace: str
    share: int
    threads: int
    partition: Partition = "matrices"

    @property
    def space(self) -> Space:
        """The matrices, as rows of one column."""
        return count(self.sizes), 1

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The buffers that the kernels read, of which a thread may read any part."""
        written = {p.buffer for p in self.private}.union(self.results)
        read = dict.fromkeys(name for kernel in self.kernels for name in inputs(kernel))
        return tuple(Operand(name, "whole") for name in read if name not in written)

    @property
    def results(self) -> tuple[str, ...]:
        """The buffers that are written for others to read."""
        private = {p.buffer for p in self.private}
        written = (name for kernel in self.kernels for name in kernel.body.written)
        return tuple(name for name in written if name not in private)

    @property
    def body(self) -> Body:
        """A body that only stores the results, and the workspace."""
        stores = (Store(name, 0, "each") for name in (*self.results, self.workspace))
        return Body((Step("chain", (), "each", "int8"),), tuple(stores))

    def renamed(self, names: Mapping[str, str]) -> Self:
        """Return the kernel with other names of its buffers, but for private ones."""
        known = {p.buffer: p.buffer for p in self.private} | dict(names)
        kernels = tuple(kernel.renamed(known) for kernel in self.kernels)
        private = tuple(p._replace(buffer=known[p.buffer]) for p in self.private)
        return replace(self, kernels=kernels, private=private, workspace=names[self.workspace])


Single = Loop | Gemm
"""A kernel with one body."""
Kernel = Single | Chain


def inputs(kernel: Kernel) -> tuple[str, ...]:
    """Return the buffers that a kernel reads, each once."""
    return tuple(dict.fromkeys([*(x.buffer for x in kernel.operands), *kernel.body.loads]))


def buffers_of(kernel: Kernel) -> tuple[str, ...]:
    """Return the buffers that a kernel reads and writes, each once."""
    return tuple(dict.fromkeys((*inputs(kernel), *kernel.body.written)))


SHARED = 1 << 14
"""From this many elements of b on, each thread should read only its columns of b."""


def gemm_partition(
    m: Dim, n: Dim, product: Product, capacity: int, by_rows: bool = False
) -> Partition:
    """Return the thread partition of a product: by rows or by columns.

    By rows each thread reads all of b, by columns all of a.  By rows is the rule: layers then need
    no barrier between them.  Products are by columns if their rows are too few to share, or if b
    is large and larger than a.  A convolution mostly has fewer columns than a panel: two chunks of
    rows are shared, however short.  Sums over places in groups are by columns,
    since few rows make a sum.  `by_rows` asks for rows wherever that can be.
    """
    few = 2 * CHUNK
    if isinstance(product, WindowProduct):
        few = CHUNK + 1
        if product.window.groups > 1 and product.trans_a:
            return "columns"
    if by_rows and not product.trans_a:
        return "rows"
    rows, columns, inner = (dim_at(dim, capacity) for dim in (m, n, product.inner))
    by_columns = columns > rows and columns * inner >= SHARED
    return "columns" if by_columns or rows < few else "rows"


def loop_partition(
    rows: Dim, columns: Dim, axis: Axis, body: Body, capacity: int, by_rows: bool = False
) -> Partition:
    """Return the partition by an axis that is not reduced: rows where they can be, if `by_rows`."""
    stored = {store.broadcast for store in body.stores}
    if by_rows and axis == "columns" and stored <= {"each", "row"}:
        return "rows"
    if axis == "rows" and ("column" in stored or _reduces(body)):
        return "columns"
    if dim_at(rows, capacity) >= 2 * CHUNK and stored <= {"each", "row"}:
        return "rows"
    if rows == 1 and stored == {"each"} and dim_at(columns, capacity) > 1 and not _reduces(body):
        return "columns"
    return "none"


def _reduces(body: Body) -> bool:
    return any([step.op in ("sum", "max") for step in body.steps])
