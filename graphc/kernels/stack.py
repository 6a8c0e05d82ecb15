"""Kernels of a stack as those of one matrix, whose operands move from matrix to matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from graphc.ir.expr import Body, Broadcast
from graphc.ir.tensor_type import Dim, Shape, count, dim_at
from graphc.kernels.iteration_space import dense_strides
from graphc.kernels.kernel import BatchedGemm, Chain, Gemm, Loop


class StackPart(NamedTuple):
    """An operand or a result of a stack's product; one buffer may serve as several."""

    name: str
    buffer: str
    strides: Shape
    """The elements from one matrix to the next, for each leading dimension."""
    pitch: Dim
    """The elements from one row to the next."""
    dtype: str


def single_product(kernel: BatchedGemm) -> Gemm:
    """Return a single product of a stack, with the names of parts as its buffers."""
    body = kernel.body
    steps = [s._replace(buffer=s.broadcast + s.buffer) if s.op == "load" else s for s in body.steps]
    stores = [s._replace(buffer=f"stored {s.buffer}") for s in body.stores]
    one = Body(tuple(steps), tuple(stores))
    sides = "left", "right", kernel.trans_a, kernel.trans_b
    fields = kernel.m, kernel.n, kernel.k, *sides, kernel.dtype, one
    return Gemm(*fields, "none", order=kernel.order)


def parts_of(kernel: BatchedGemm) -> Iterator[StackPart]:
    """Yield the operands and results of a stack's products."""
    by_kind = _strides(kernel.sizes, kernel.m, kernel.n)
    factors = ("left", kernel.a, kernel.strides_a), ("right", kernel.b, kernel.strides_b)
    for name, buffer, strides in factors:
        yield StackPart(name, buffer, strides[:-1], strides[-1], kernel.factor_dtype)
    for s in kernel.body.steps:
        if s.op == "load":
            yield StackPart(
                s.broadcast + s.buffer, s.buffer, by_kind[s.broadcast], kernel.n, s.dtype
            )
    for store, (*between, pitch) in zip(kernel.body.stores, kernel.strides_out, strict=True):
        dtype = kernel.body.steps[store.step].dtype
        yield StackPart(f"stored {store.buffer}", store.buffer, tuple(between), pitch, dtype)


class Link(NamedTuple):
    """A kernel of a chain for one matrix, and by buffer the elements from matrix to matrix."""

    kernel: Loop | BatchedGemm
    strides: dict[str, Shape]


def links_of(chain: Chain) -> Iterator[Link]:
    """Yield the kernels of a chain for one matrix; private buffers stay where they are."""
    private = {p.buffer for p in chain.private}
    for kernel in chain.kernels:
        strides = {name: s for name, s in strides_of(kernel, chain.sizes) if name not in private}
        yield Link(_of_matrix(kernel, chain.sizes), strides)


def _of_matrix(kernel: Loop | BatchedGemm, sizes: Shape) -> Loop | BatchedGemm:
    if isinstance(kernel, BatchedGemm):
        return replace(kernel, sizes=(1,) * len(sizes))
    return replace(kernel, rows=rows_of(kernel, sizes), partition="none")


def rows_of(kernel: Loop, sizes: Shape) -> int:
    """Return the rows of a loop for each matrix of a stack; 0 if it does not run over a stack."""
    rows = dim_at(kernel.rows, 1) // dim_at(count(sizes), 1)
    return rows if count((*sizes, rows)) == kernel.rows else 0


def strides_of(kernel: Loop | BatchedGemm, sizes: Shape) -> Iterator[tuple[str, Shape]]:
    """Yield the buffers of a kernel of a stack, with the elements from one matrix to the next."""
    if isinstance(kernel, BatchedGemm):
        yield from ((part.buffer, part.strides) for part in parts_of(kernel))
        return
    rows, columns = rows_of(kernel, sizes), kernel.columns
    by_kind = _strides(sizes, rows, columns)
    yield from ((s.buffer, by_kind[s.broadcast]) for s in kernel.body.steps if s.op == "load")
    yield from ((s.buffer, by_kind[s.broadcast]) for s in kernel.body.stores)


def _strides(sizes: Shape, rows: Dim, columns: Dim) -> dict[Broadcast, Shape]:
    """Return the elements from one matrix to the next of a contiguous buffer of each kind."""
    none: Shape = (0,) * len(sizes)
    each, row = dense_strides((*sizes, rows, columns))[:-2], dense_strides((*sizes, rows))[:-1]
    return {"each": each, "row": row, "column": none, "one": none}
