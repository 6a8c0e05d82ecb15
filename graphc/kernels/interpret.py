"""Fused kernels in slow NumPy: the reference that generated code is compared with.

Sums have the order that every backend keeps: over columns 16 lanes and a tree of halves, over rows
one row after the other, and in a product one inner index after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from graphc.base.door import higher
from graphc.ir.access import AccessMap
from graphc.ir.expr import BodyBuilder, Broadcast, Expr, Step
from graphc.ir.forms import Sizes, Window
from graphc.ir.narrow import converted, narrow
from graphc.ir.tensor_type import ORDERED, Batch, Shape, dim_at, numpy_dtype, shape_at
from graphc.kernels.kernel import (
    LANES,
    BatchedGemm,
    Chain,
    Convolution,
    Gemm,
    Kernel,
    Loop,
    Permutation,
    ScatterAdd,
    Single,
)

Array = NDArray[Any]

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "neg": np.negative,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "pow": np.power,
    "cos": np.cos,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    f"round_{ORDERED}": lambda x: narrow().nearest(x),
    "maximum": np.maximum,
    "minimum": np.minimum,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "not": np.logical_not,
    "floor_div": np.floor_divide,
    "select": np.where,
    "cast": lambda x: x,
}
"""The scalar functions of a kernel's steps, as NumPy computes them: the vocabulary of all backends.

select(condition, a, b); cast converts to the step's dtype, toward zero for integers."""


def evaluated(rule: Callable[[Expr], Expr], x: Array) -> Array:
    """Return a scalar expression of an array's elements; every step rounds by itself."""
    result = rule(BodyBuilder().load("x", "each", x.dtype.name))
    values: list[Array] = []
    for step in result.builder.steps:
        if step.args:
            found = FUNCTIONS[step.op](*[values[arg] for arg in step.args])
        else:
            found = x if step.op == "load" else step.value
        values.append(converted(np.asarray(found), step.dtype))
    return values[result.number]


def run(kernel: Kernel, arrays: Mapping[str, Array], n: int) -> None:
    """Run a kernel for a batch of `n` rows: write the buffers that it stores.

    `arrays` holds every buffer by name, in the shape that users see.  Raise ValueError if a buffer
    has another number of elements than its broadcast needs.  Multiply and add round separately.
    """
    if isinstance(kernel, Chain):
        sizes = shape_at(kernel.sizes, n)
        made = {
            p.buffer: np.empty((*sizes, *p.matrix), numpy_dtype(p.dtype)) for p in kernel.private
        }
        for one in kernel.kernels:
            run(one, {**arrays, **made}, n)
        return
    with np.errstate(all="ignore"):
        _Run(kernel, arrays, n).stores()


class _Run:
    """The values of all steps: arrays of shape (rows or 1, columns or 1)."""

    def __init__(self, kernel: Single, arrays: Mapping[str, Array], n: int) -> None:
        self.kernel, self.arrays, self.n = kernel, arrays, n
        self.rows, self.columns = (dim_at(dim, n) for dim in kernel.space)
        self.values: list[Array] = []
        for step in kernel.body.steps:
            value = converted(self._value(step), step.dtype)
            self.values.append(np.broadcast_to(value, self._shape(step.broadcast)))

    def stores(self) -> None:
        """Write all stores at the end, from values that share no memory with their targets."""
        kernel = self.kernel
        for i, store in enumerate(kernel.body.stores):
            value = np.broadcast_to(self.values[store.step], self._shape(store.broadcast))
            target = self.arrays[store.buffer]
            if isinstance(kernel, BatchedGemm):
                one = kernel.m, kernel.n
                target = matrices(target, kernel.sizes, kernel.strides_out[i], one, self.n)
            target[...] = value.reshape(target.shape)

    def _shape(self, broadcast: Broadcast) -> tuple[int, int]:
        rows = self.rows if broadcast in ("each", "row") else 1
        return rows, self.columns if broadcast in ("each", "column") else 1

    def _value(self, step: Step) -> Array:
        if step.op == "load":
            return self._loaded(step).reshape(self._shape(step.broadcast)).copy()
        if step.op in ("fetch", "offset", "scatter_add"):
            ways = {"fetch": self._fetched, "offset": self._offsets, "scatter_add": self._summed}
            return ways[step.op](step)
        if step.op == "const":
            return np.full((1, 1), step.value, numpy_dtype(step.dtype))
        if step.op == "index":
            return np.arange(max(self._shape(step.broadcast))).reshape(self._shape(step.broadcast))
        if step.op == "size":
            return np.full((1, 1), self._size(step.value))
        if step.op == "product":
            assert isinstance(self.kernel, Gemm), "only a Gemm has a product"
            return product(self.kernel, self.arrays, self.n)
        args = [self.values[number] for number in step.args]
        if step.op in ("sum", "max"):
            return self._reduced(step, args[0])
        if step.op == "philox":
            assert isinstance(step.value, int), "the value is the stream"
            seed, draws, *first = (int(arg.item()) for arg in args)
            given = seed, step.value, draws, self.rows, self.columns, *first
            return np.asarray(higher("philox").keep_words(*given))
        return np.asarray(FUNCTIONS[step.op](*args))

    def _loaded(self, step: Step) -> Array:
        if not isinstance(self.kernel, Permutation):
            return self.arrays[step.buffer]
        whole = self.arrays[step.buffer].reshape(shape_at(self.kernel.shape, self.n))
        return whole.transpose(self.kernel.axes)

    def _fetched(self, step: Step) -> Array:
        """Return gathered elements, or the fill value."""
        assert isinstance(self.kernel, Loop), "a product fetches nothing"
        assert isinstance(step.value, AccessMap), "the value is an access map"
        flat = self.arrays[step.buffer].reshape(-1)
        column = np.arange(self.columns)[None, :]
        index, there = np.zeros((1, 1), int), np.ones((1, 1), bool)
        first, *places = self._places()
        if step.value.given:
            first = self.values[step.args[0]]
        for i, axis in zip((first, *places, column), step.value.axes, strict=True):
            at, rest = np.divmod(i * axis.scale + axis.shift, axis.divisor)
            there = (
                there & (at >= 0) & (at < dim_at(axis.size, self.n)) & (axis.floor | (rest == 0))
            )
            index = index + at * axis.pitch
        index, there = np.broadcast_arrays(index, there)
        return np.where(there, flat[np.where(there, index, 0)], flat.dtype.type(step.value.fill))

    def _summed(self, step: Step) -> Array:
        """Return the sums of the source rows at each index, added one after the other."""
        kernel = self.kernel
        assert isinstance(kernel, ScatterAdd), "only a scatter-add has sums of rows"
        total = np.zeros((self.rows, self.columns), step.dtype)
        indices = self.arrays[kernel.indices].reshape(-1).astype(np.int64)
        rows = self.arrays[kernel.source].reshape(-1, self.columns)[: dim_at(kernel.count, self.n)]
        for index, row in zip(indices.clip(0, self.rows - 1), rows, strict=True):
            total[index] += row
        return total

    def _offsets(self, step: Step) -> Array:
        assert isinstance(step.value, tuple), "the value is the tile"
        places, found = self._places()[1:], np.zeros((1, 1), int)
        for place, size in zip(places, step.value, strict=True):
            found = found * size + place % size
        return found

    def _places(self) -> list[Array]:
        """Return the index of each row in each dimension, (rows, 1)."""
        assert isinstance(self.kernel, Loop), "a product has no places"
        # Of a column with more than 8192 entries NumPy 2.4 gives wrong indices, of a line not.
        found = np.unravel_index(np.arange(self.rows), (self.rows, *self.kernel.places))
        return [index[:, None] for index in found]

    def _size(self, of: object) -> int:
        if isinstance(of, Batch):
            return of.at(self.n)
        return self.rows if of == "rows" else self.columns

    def _reduced(self, step: Step, x: Array) -> Array:
        x = np.broadcast_to(x, (self.rows, self.columns))
        if step.op == "max":
            return np.asarray(x.max(axis=0 if step.value == "rows" else 1, keepdims=True))
        return sum_of_rows(x) if step.value == "rows" else sum_of_columns(x)


def work(kernel: Kernel, n: int) -> int:
    """Return the multiply-adds of a kernel, and its other scalar steps."""
    if isinstance(kernel, Chain):
        return sum(work(one, n) for one in kernel.kernels)
    rows, columns = (dim_at(dim, n) for dim in kernel.space)
    inner = dim_at(kernel.k, n) if isinstance(kernel, Gemm) else 0
    return rows * columns * (inner + len(kernel.body.steps))


def sum_of_rows(x: Array) -> Array:
    """Return the sum over the rows, (1, columns): one row added after the other."""
    total = np.zeros((1, x.shape[1]), x.dtype)
    for row in x:
        total += row
    return total


def sum_of_columns(x: Array) -> Array:
    """Return the sum over the columns, (rows, 1).

    Lane l adds the columns l, l + 16, ...; then the halves of the lanes are added.
    """
    rows, columns = x.shape
    lanes = np.zeros((rows, LANES), x.dtype)
    for start in range(0, columns, LANES):
        piece = x[:, start : start + LANES]
        lanes[:, : piece.shape[1]] += piece
    half = LANES // 2
    while half:
        lanes = lanes[:, :half] + lanes[:, half : 2 * half]
        half //= 2
    return lanes


def matrices(buffer: Array, sizes: Shape, strides: Shape, matrix: Shape, n: int) -> Array:
    """Return a view of the matrices of a stack in a buffer, (*sizes, *matrix)."""
    in_bytes = tuple(step * buffer.itemsize for step in (*shape_at(strides, n), 1))
    return as_strided(buffer, shape_at((*sizes, *matrix), n), in_bytes)


def product(kernel: Gemm, arrays: Mapping[str, Array], n: int) -> Array:
    """Return the product, (m, n), its terms added one inner index after the other, or in blocks.

    The products of a stack lie below each other.
    """
    if kernel.order == "blocks":
        a, b = _factors(kernel, arrays[kernel.a], arrays[kernel.b], n)
        total = narrow().multiplied(a, b, kernel.run, "blocks")
        return total.reshape(-1, total.shape[-1])
    a, b = (_factor(kernel, arrays[name]) for name in (kernel.a, kernel.b))
    if isinstance(kernel, Convolution) and kernel.window.groups > 1:
        return _grouped(kernel, a, b, n)
    a, b = _factors(kernel, a, b, n)
    total = np.zeros((*a.shape[:-1], b.shape[-1]), kernel.dtype)
    there = (
        _pixels(kernel, n) if isinstance(kernel, Convolution) else np.broadcast_to(True, a.shape)
    )
    terms = range(a.shape[-1])
    for p in narrow().pairs(len(terms), kernel.run) if kernel.ordered else terms:
        left, right = a[..., :, p : p + 1], b[..., p : p + 1, :]
        added = (
            narrow().multiply_add(total, left, right) if kernel.ordered else total + left * right
        )
        np.copyto(total, added, where=there[..., :, p : p + 1])
    return total.reshape(-1, total.shape[-1])


def _factor(kernel: Gemm, factor: Array) -> Array:
    """Return a factor in the dtype of the sums."""
    return narrow().widened(factor) if kernel.ordered else factor.astype(kernel.dtype, copy=False)


def _factors(kernel: Gemm, a: Array, b: Array, n: int) -> tuple[Array, Array]:
    """Return the factors as matrices (..., m, k) and (..., k, n)."""
    of_a, of_b = kernel.factor_spaces
    if isinstance(kernel, Convolution):
        left, window = window_matrix(kernel.window, a), kernel.window
        right = reversed_filter(window, b) if kernel.trans_b else b.reshape(shape_at(of_b, n))
        return left.T if kernel.trans_a else left, right
    if isinstance(kernel, BatchedGemm):
        a = matrices(a, kernel.sizes, kernel.strides_a, of_a, n)
        b = matrices(b, kernel.sizes, kernel.strides_b, of_b, n)
    else:
        a, b = a.reshape(shape_at(of_a, n)), b.reshape(shape_at(of_b, n))
    a = a.swapaxes(-1, -2) if kernel.trans_a else a
    return a, b.swapaxes(-1, -2) if kernel.trans_b else b


def _pixels(kernel: Convolution, n: int) -> Array:
    """Return which elements of the left factor are pixels, (m, k)."""
    window = kernel.window
    there = window_matrix(window, np.ones((dim_at(kernel.images, n), window.pixels), bool))
    return there.T if kernel.trans_a else there


def _grouped(kernel: Convolution, a: Array, b: Array, n: int) -> Array:
    """Return the products of the groups side by side, (m, n)."""
    window, groups = kernel.window, kernel.window.groups
    part = dim_at(kernel.n, n) // groups
    one = replace(kernel, n=part, window=replace(window, groups=1))
    images = a.reshape(-1, *window.space, groups, window.channels)
    shape = (part, groups, window.channels) if kernel.trans_b else (groups, part)
    factors = b.reshape(-1, *shape)
    of_groups = [
        {kernel.a: images[..., group, :], kernel.b: factors[..., group, :]}
        for group in range(groups)
    ]
    return np.concatenate([product(one, arrays, n) for arrays in of_groups], axis=1)


def window_matrix(window: Window, images: Array) -> Array:
    """Return the pixels, or 0, that the filter reads: (images * places, offsets * channels)."""
    images = images.reshape(-1, *window.space, window.channels)
    found = np.zeros((len(images), *window.places, *window.kernel, window.channels), images.dtype)
    for place in np.ndindex(*window.places):
        for offset in np.ndindex(*window.kernel):
            pixel = _pixel(window, place, offset)
            if pixel is not None:
                found[:, *place, *offset] = images[:, *pixel]  # type: ignore[arg-type]
    return found.reshape(len(images) * window.count, window.depth)


def _pixel(window: Window, place: Sizes, offset: Sizes) -> Sizes | None:
    """Return the pixel of a place and an offset, or None."""
    found = []
    for axis, size in enumerate(window.space):
        at = place[axis] * window.stride[axis] + offset[axis] * window.dilation[axis]
        pixel, rest = divmod(at - window.before[axis], window.divisor[axis])
        if rest or not 0 <= pixel < size:
            return None
        found.append(pixel)
    return tuple(found)


def reversed_filter(window: Window, weight: Array) -> Array:
    """Return a weight (offsets, n, channels) as (offsets * channels, n), offsets reversed."""
    offsets = window.depth // window.channels
    stored = weight.reshape(offsets, -1, window.channels)[::-1]
    return stored.transpose(0, 2, 1).reshape(window.depth, -1)
