"""A stack of products as one product whose operands move from matrix to matrix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from graphc.ir.expr import Body
from graphc.ir.tensor_type import Dim, Shape
from graphc.kernels.iteration_space import dense_strides
from graphc.kernels.kernel import BatchedGemm, Gemm


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
    return Gemm(kernel.m, kernel.n, kernel.k, *sides, kernel.dtype, one, "none")


def parts_of(kernel: BatchedGemm) -> Iterator[StackPart]:
    """Yield the operands and results of a stack's products."""
    none: Shape = (0,) * len(kernel.sizes)
    by_kind = {
        "each": dense_strides((*kernel.sizes, kernel.m, kernel.n))[:-2],
        "row": dense_strides((*kernel.sizes, kernel.m))[:-1],
        "column": none,
        "one": none,
    }
    factors = ("left", kernel.a, kernel.strides_a), ("right", kernel.b, kernel.strides_b)
    for name, buffer, strides in factors:
        yield StackPart(name, buffer, strides[:-1], strides[-1], kernel.dtype)
    for s in kernel.body.steps:
        if s.op == "load":
            yield StackPart(
                s.broadcast + s.buffer, s.buffer, by_kind[s.broadcast], kernel.n, s.dtype
            )
    for store, (*between, pitch) in zip(kernel.body.stores, kernel.strides_out, strict=True):
        dtype = kernel.body.steps[store.step].dtype
        yield StackPart(f"stored {store.buffer}", store.buffer, tuple(between), pitch, dtype)
