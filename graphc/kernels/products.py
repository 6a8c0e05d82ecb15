"""The form of an op as a matrix product: of matrices, or of a window over images and a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.tensor_type import Dim, TensorType
from graphc.kernels.window import Window


@dataclass(frozen=True, slots=True)
class Product:
    """The form of an op as a matrix product of its first two operands: see `Gemm`."""

    inner: Dim
    trans_a: bool = False
    trans_b: bool = False
    window: Window | None = None
    stacked: bool = False
    """Whether the operands are many matrices, and not one."""


def matrix_product(
    ins: Sequence[TensorType], trans_a: bool = False, trans_b: bool = False
) -> Product | None:
    """Return the form of a @ b, either one transposed, or None if it has no such kernel."""
    a, b = ins[:2]
    inner = a.shape[-2 if trans_a else -1]
    if b.rank > 2 or (a.rank > 2 and trans_a):
        counted = all(isinstance(dim, int) for dim in (*a.shape[-2:], *b.shape[-2:]))
        return Product(inner, trans_a, trans_b, stacked=True) if counted else None
    columns = b.shape[0 if trans_b else 1]
    counted = all(isinstance(dim, int) for dim in (a.shape[-1], b.shape[1], columns))
    return Product(inner, trans_a, trans_b) if counted else None
