"""Arithmetic and logic beyond + - * /.

Powers, roundings to whole numbers, whole quotients and remainders; logical ops on bools, bitwise on
whole numbers; tests for NaN and infinity.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.build import Builder, Value, apply, as_value
from graphc.ir.expr import Axis, Expr, call
from graphc.ir.op import Array, Cotangents, Iteration, NoGradient, Op
from graphc.ir.tensor_type import TensorType
from graphc.ops.apply import Operand, binary, of_one, of_two, pair
from graphc.ops.elementwise import (
    Binary,
    Power,
    Unary,
    check_float,
    div,
    elements,
    mul,
    neg,
    sub,
    unbroadcast,
)
from graphc.ops.functions import abs_, log
from graphc.ops.select import Equal, NotEqual, equal, less, not_equal, where

__all__ = [
    "ceil",
    "floor",
    "floor_div",
    "fmod",
    "isfinite",
    "isinf",
    "isnan",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "mod",
    "power",
    "reciprocal",
    "round_",
    "trunc_div",
]


class Pow(Binary):
    """The power a ** b of floats; NaN where a is below 0 and b is not a whole number."""

    ufunc = np.power
    onnx = "Pow"
    gradient_text = (
        "where(b == 0, 0, d_out * b * a ** (b - 1))",
        "d_out * out * log(where(a == 0, 1, a))",
    )

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        check_float(self, "a", ins[0])
        return super().infer(ins)

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


def distances_to_whole(x: Array) -> Array:
    """Return the signed distance of each number to the nearest whole one."""
    return np.asarray(x - np.rint(x))


class Rounding(NoGradient, Unary, base=True):
    """The base of roundings to a whole number, in x's dtype."""

    is_exact = True

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return distances_to_whole(ins[0])


class Floor(Rounding):
    """The largest whole number that is not above x; its gradient is zero."""

    ufunc = np.floor
    onnx = "Floor"


class Ceil(Rounding):
    """The smallest whole number that is not below x; its gradient is zero."""

    ufunc = np.ceil
    onnx = "Ceil"


class Round(Rounding):
    """The nearest whole number, the even one of two; its gradient is zero."""

    ufunc = np.rint
    onnx = "Round"

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return distances_to_whole(ins[0] - 0.5)


class WholeQuotient(NoGradient, Binary, base=True):
    """The base of quotients of whole numbers; 0 where b is 0."""

    whole_only = True
    gradient_text = ("", "")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        for role, type in zip(self.roles, ins, strict=True):
            if type.is_float or type.dtype == "bool":
                raise ValueError(f"{role} is {type.dtype}, {self.name} takes whole numbers")
        return super().infer(ins)


class FloorDiv(WholeQuotient):
    """The quotient a / b rounded down."""

    ufunc = np.floor_divide


class TruncDiv(WholeQuotient):
    """The quotient a / b of whole numbers rounded toward zero, as in C; 0 where b is 0."""

    inplace = ()

    def reference(self, ins: Sequence[Array]) -> Array:
        a, b = ins
        floor = a // b
        return np.asarray(floor + ((floor * b != a) & (floor < 0)).astype(floor.dtype))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        a, b = ins
        floor = call("floor_div", a, b)
        uneven = call("not_equal", floor * b, a)
        return floor + call("and", uneven, floor < 0).cast(floor.dtype)


class Remainder(Binary, base=True):
    """The base of remainders of a / b; 0 for whole numbers where b is 0."""

    gradient_text = ("d_out", "-d_out * (a - out) / b")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        if ins[0].dtype == "bool":
            raise ValueError(f"a is bool, {self.name} takes numbers")
        return super().infer(ins)

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "call"

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        times = div(sub(ins[0], out), ins[1])
        return unbroadcast(dout, ins[0]), unbroadcast(neg(mul(dout, times)), ins[1])

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return distances_to_whole(ins[0] / ins[1])


class Mod(Remainder):
    """The remainder of a by b that has the sign of b, as Python's a % b."""

    ufunc = np.mod


class Fmod(Remainder):
    """The remainder of a by b that has the sign of a, as C's fmod."""

    ufunc = np.fmod


floor = of_one(Floor())
ceil = of_one(Ceil())
round_ = of_one(Round())
trunc_div = of_two(TruncDiv())
mod = of_two(Mod())
fmod = of_two(Fmod())


def floor_div(a: Operand, b: Operand, *, name: str | None = None) -> Value:
    """Return a / b rounded down, broadcast; for whole numbers 0 where b is 0.

    Floats are divided as floor(a / b).
    """
    left, right = pair("floor_div", a, b)
    if left.type.is_float:
        return floor(div(left, right), name=name)
    return left.builder.apply(FloorDiv(), left, right, name=name)


def check_bits(op: Op, x: TensorType, role: str) -> None:
    """Raise ValueError unless x is bool or whole numbers."""
    if x.is_float:
        raise ValueError(
            f"{role} is {x.dtype}, {op.name} takes bools or whole numbers\n"
            "compare it first: x > 0, or gc.not_equal(x, 0)"
        )


class Logic(NoGradient, Binary, base=True):
    """The base of binary logical ops, on bools or on each bit of whole numbers."""

    whole_only = True
    gradient_text = ("", "")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        for role, type in zip(self.roles, ins, strict=True):
            check_bits(self, type, role)
        return super().infer(ins)

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return elements(ins, self.infer(ins)) if ins[0].dtype == "bool" else "call"


class And(Logic):
    """The conjunction a & b: of bools, or of each bit of whole numbers."""

    ufunc = np.bitwise_and


class Or(Logic):
    """The disjunction a | b: of bools, or of each bit of whole numbers."""

    ufunc = np.bitwise_or


class Xor(Logic):
    """The exclusive or a ^ b: of bools, or of each bit of whole numbers."""

    ufunc = np.bitwise_xor

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return call("not_equal", ins[0], ins[1])


class Not(NoGradient, Unary):
    """The negation ~x: of bools, or of each bit of whole numbers."""

    ufunc = np.invert
    whole_only = True

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        check_bits(self, ins[0], "x")
        return ins[0]

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "elements" if ins[0].dtype == "bool" else "call"


logical_and = of_two(And(), "logical_and")
logical_or = of_two(Or(), "logical_or")
logical_xor = of_two(Xor(), "logical_xor")
logical_not = of_one(Not(), "logical_not")


def isnan(x: Value, *, name: str | None = None) -> Value:
    """Return whether x is not a number, as bool."""
    return not_equal(_floats(NotEqual(), x), x, name=name)  # only NaN differs from itself


def isinf(x: Value, *, name: str | None = None) -> Value:
    """Return whether x is infinite, with either sign, as bool."""
    return equal(abs_(_floats(Equal(), x)), np.inf, name=name)


def isfinite(x: Value, *, name: str | None = None) -> Value:
    """Return whether x is neither infinite nor NaN, as bool."""
    return less(abs_(_floats(Equal(), x)), np.inf, name=name)


def _floats(op: Op, x: Value) -> Value:
    if not as_value(op.name, x).type.is_float:
        raise x.builder.error(op, f"x is {x.dtype}, integers and bools are always finite", (x,))
    return x
