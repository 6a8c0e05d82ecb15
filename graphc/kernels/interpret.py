"""Fused kernels in slow NumPy: what generated code is compared with.

Sums have the order that every backend keeps: along columns 16 lanes and a tree of halves, along
rows one row after the other, and in a product one inner index after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.kernels.body import Span, Step
from graphc.kernels.functions import FUNCTIONS
from graphc.kernels.kernel import LANES, Gemm, Kernel, space
from graphc.philox import keep_words
from graphc.tensor_type import dim_at

Array = NDArray[Any]


def run(kernel: Kernel, arrays: Mapping[str, Array], n: int) -> None:
    """Run a kernel for a batch of `n` rows: write the buffers that it stores.

    `arrays` holds every buffer by name, in the shape that users see; a buffer that has another
    number of elements than its span says is a ValueError.  Multiply and add round separately.
    """
    with np.errstate(all="ignore"):
        _Run(kernel, arrays, n).stores()


class _Run:
    """The values of all steps: arrays of shape (rows or 1, columns or 1)."""

    def __init__(self, kernel: Kernel, arrays: Mapping[str, Array], n: int) -> None:
        self.kernel, self.arrays, self.n = kernel, arrays, n
        self.rows, self.columns = (dim_at(dim, n) for dim in space(kernel))
        self.values: list[Array] = []
        for step in kernel.body.steps:
            value = self._value(step).astype(step.dtype, copy=False)
            self.values.append(np.broadcast_to(value, self._shape(step.span)))

    def stores(self) -> None:
        """Write at the end, from values that share no memory with what is written."""
        for store in self.kernel.body.stores:
            value = np.broadcast_to(self.values[store.step], self._shape(store.span))
            target = self.arrays[store.buffer]
            target[...] = value.reshape(target.shape)

    def _shape(self, span: Span) -> tuple[int, int]:
        rows = self.rows if span in ("each", "row") else 1
        return rows, self.columns if span in ("each", "column") else 1

    def _value(self, step: Step) -> Array:
        if step.op == "load":
            return self.arrays[step.buffer].reshape(self._shape(step.span)).copy()
        if step.op == "const":
            return np.full((1, 1), step.value, step.dtype)
        if step.op == "index":
            return np.arange(max(self._shape(step.span))).reshape(self._shape(step.span))
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
            return keep_words(seed, step.value, draws, self.rows, self.columns, *first)
        return np.asarray(FUNCTIONS[step.op](*args))

    def _size(self, of: object) -> int:
        if isinstance(of, int):
            return of * self.n
        return self.rows if of == "rows" else self.columns

    def _reduced(self, step: Step, x: Array) -> Array:
        x = np.broadcast_to(x, (self.rows, self.columns))
        if step.op == "max":
            return np.asarray(x.max(axis=0 if step.value == "rows" else 1, keepdims=True))
        return sum_of_rows(x) if step.value == "rows" else sum_of_columns(x)


def sum_of_rows(x: Array) -> Array:
    """(1, columns): one row added after the other."""
    total = np.zeros((1, x.shape[1]), x.dtype)
    for row in x:
        total += row
    return total


def sum_of_columns(x: Array) -> Array:
    """(rows, 1): lane l adds the columns l, l + 16, ...; then the halves of the lanes add up."""
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


def product(kernel: Gemm, arrays: Mapping[str, Array], n: int) -> Array:
    """(m, n): the products added one inner index after the other."""
    rows, columns, inner = (dim_at(dim, n) for dim in (kernel.m, kernel.n, kernel.k))
    a = arrays[kernel.a].reshape((inner, rows) if kernel.trans_a else (rows, inner))
    b = arrays[kernel.b].reshape((columns, inner) if kernel.trans_b else (inner, columns))
    a, b = a.T if kernel.trans_a else a, b.T if kernel.trans_b else b
    total = np.zeros((rows, columns), kernel.dtype)
    for p in range(inner):
        total += a[:, p : p + 1] * b[p : p + 1, :]
    return total
