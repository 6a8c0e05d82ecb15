"""Matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir.build import Builder, Value
from graphc.ir.forms import Product, matrix_product
from graphc.ir.op import Array, Op
from graphc.ir.tensor_type import Dim, Shape, TensorType, broadcast, count
from graphc.ops.elementwise import pair, unbroadcast
from graphc.ops.shape import reshape


@dataclass(frozen=True)
class MatMul(Op):
    """The product a @ b over the last two axes, either one transposed; leading axes broadcast."""

    name = "matmul"
    roles = ("a", "b")
    trans_a: bool = False
    trans_b: bool = False

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        a, b = ins
        if a.rank < 2 or b.rank < 2:
            raise ValueError(
                f"a is {a}, b is {b}: matmul takes rank 2 and more\n"
                "reshape a vector to (1, D) or (D, 1)"
            )
        if a.dtype != b.dtype or not a.is_float:
            raise ValueError(f"a is {a.dtype}, b is {b.dtype}: matmul takes floats of one dtype")
        rows, inner = _matrix(a.shape, self.trans_a)
        other, columns = _matrix(b.shape, self.trans_b)
        if inner != other:
            raise ValueError(f"a has {inner} columns, b has {other} rows")
        return a.with_shape((*broadcast(a.shape[:-2], b.shape[:-2]), rows, columns))

    def reference(self, ins: Sequence[Array]) -> Array:
        a, b = ins
        left = a.swapaxes(-1, -2) if self.trans_a else a
        return np.asarray(left @ (b.swapaxes(-1, -2) if self.trans_b else b))

    def product(self, ins: Sequence[TensorType]) -> Product | None:
        return matrix_product(ins, self.trans_a, self.trans_b)

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        x, y = ins
        if self.trans_a:
            dx = b.apply(MatMul(self.trans_b, True), y, dout)
        else:
            dx = b.apply(MatMul(False, not self.trans_b), dout, y)
        if y.type.rank == 2 and x.type.rank > 2 and not self.trans_a:
            x, dout = _rows(x), _rows(dout)  # one product sums over all matrices
        if self.trans_b:
            dy = b.apply(MatMul(True, self.trans_a), dout, x)
        else:
            dy = b.apply(MatMul(not self.trans_a, False), x, dout)
        return unbroadcast(dx, ins[0]), unbroadcast(dy, y)

    @property
    def gradient_text(self) -> tuple[str, ...]:
        back_a, back_b = ("a" if self.trans_a else "a.T"), ("b" if self.trans_b else "b.T")
        for_a, for_b = f"d_out @ {back_b}", f"{back_a} @ d_out"
        return (
            f"({for_a}).T" if self.trans_a else for_a,
            f"({for_b}).T" if self.trans_b else for_b,
        )


def _rows(x: Value) -> Value:
    """Return the matrices of a value stacked into one."""
    return reshape(x, (count(x.shape[:-1]), x.shape[-1]))


def _matrix(shape: Shape, transposed: bool) -> tuple[Dim, Dim]:
    return (shape[-1], shape[-2]) if transposed else (shape[-2], shape[-1])


def matmul(a: Any, b: Any, *, name: str | None = None) -> Value:
    """Return a @ b over the last two axes; leading axes broadcast.

    A vector is one row on the left and one column on the right, as in `numpy.matmul`, and the
    result has no axis for it.
    """
    left, right = pair("matmul", a, b)
    vectors = left.type.rank == 1, right.type.rank == 1
    if not any(vectors):
        return left.builder.apply(MatMul(), left, right, name=name)
    with left.builder.all_or_nothing():
        rows = reshape(left, (1, *left.shape)) if vectors[0] else left
        columns = reshape(right, (*right.shape, 1)) if vectors[1] else right
        product = left.builder.apply(MatMul(), rows, columns)
        *leading, above, across = product.shape
        own = [dim for dim, one in zip((above, across), vectors, strict=True) if not one]
        return reshape(product, (*leading, *own), name=name)
