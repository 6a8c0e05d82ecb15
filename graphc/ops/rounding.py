"""Roundings of float32 to bfloat16, which products with an order of terms multiply."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.expr import Axis, Expr
from graphc.ir.narrow import narrow
from graphc.ir.op import Array, NoGradient
from graphc.ir.tensor_type import ORDERED, TensorType
from graphc.ops.elementwise import Unary


class ToBfloat16(NoGradient, Unary):
    """x, of float32, rounded to bfloat16: to nearest, ties to even.

    Magnitudes below 2**-56 become 0, so that no sum of products is ever subnormal; see
    `graphc/features/precision/bfloat16.py`.  NaN becomes the positive quiet NaN.
    """

    inplace = ()

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return bfloat16 of x's shape; raise ValueError unless x is float32."""
        (x,) = ins
        if x.dtype != "float32":
            raise ValueError(f"x is {x.dtype}, only float32 is rounded to {ORDERED}")
        return x.with_dtype(ORDERED)

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return x as bits."""
        return narrow().rounded(ins[0])

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        """Return the cast of x."""
        return ins[0].cast(ORDERED)


class RoundBfloat16(Unary, gradient="d_out"):
    """x, of float32, rounded to the nearest number of bfloat16, half to even, and kept in float32.

    Gradients flow through it as if it did not round.
    """

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return x's type; raise ValueError unless x is float32."""
        return ToBfloat16().infer(ins).with_dtype("float32")

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return x rounded, as float32."""
        return narrow().nearest(ins[0])
