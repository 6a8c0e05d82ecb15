"""Powers: of a value with a fixed exponent, or with values as exponents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.build import Builder, Value, apply, as_value
from graphc.ir.expr import Axis, Expr, call
from graphc.ir.op import Array, Cotangents
from graphc.ir.tensor_type import TensorType
from graphc.ops.elementwise import Binary, Operand, Power, binary, mul, sub, unbroadcast
from graphc.ops.functions import log
from graphc.ops.select import equal, where

__all__ = ["power", "reciprocal"]


class Pow(Binary):
    """The power a ** b of floats; NaN where a is below 0 and b is not a whole number."""

    onnx = "Pow"
    gradient_text = (
        "where(b == 0, 0, d_out * b * a ** (b - 1))",
        "d_out * out * log(where(a == 0, 1, a))",
    )

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        if not ins[0].is_float:
            raise ValueError(
                f"a is {ins[0].dtype}, pow takes floats\ncast it: gc.cast(a, 'float32')"
            )
        return super().infer(ins)

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(ins[0] ** ins[1])

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return call("pow", ins[0], ins[1])

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        base, exponent = ins
        slope = mul(exponent, b.apply(Pow(), base, sub(exponent, 1.0)))
        da = where(equal(exponent, 0.0), 0.0, mul(dout, slope))
        db = mul(dout, mul(out, log(where(equal(base, 0.0), 1.0, base))))  # 0, not 0 * log(0)
        return unbroadcast(da, base), unbroadcast(db, exponent)


def power(x: Operand, exponent: Operand, *, name: str | None = None) -> Value:
    """Return x ** exponent, broadcast; floats only.  One of the two may be a number."""
    if isinstance(exponent, (int, float, np.integer, np.floating)):
        return apply(Power(float(exponent)), as_value("power", x), name=name)
    return binary(Pow(), x, exponent, name)


def reciprocal(x: Value, *, name: str | None = None) -> Value:
    """Return 1 / x; floats only."""
    return power(x, -1.0, name=name)
