"""Arithmetic beyond + - * /: powers, roundings to whole numbers, whole quotients, remainders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from graphc.ir.build import Value, apply, as_value
from graphc.ir.expr import Axis, Expr, call
from graphc.ir.op import Array, Iteration, NoGradient
from graphc.ir.tensor_type import TensorType
from graphc.ops.apply import Operand, binary, check_float, of_one, of_two, pair, with_attributes
from graphc.ops.elementwise import Binary, Power, Unary, div

__all__ = [
    "ceil",
    "floor",
    "floor_div",
    "fmod",
    "mod",
    "power",
    "reciprocal",
    "round_",
    "trunc_div",
]


class Pow(Binary, ufunc=np.power, onnx="Pow"):
    """The power a ** b of floats; NaN where a is below 0 and b is not a whole number."""

    gradient_text = (
        "where(b == 0, 0, d_out * (b * a ** (b - 1)))",
        "d_out * (out * log(where(a == 0, 1, a)))",  # 0, not 0 * log(0)
    )

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        check_float(self, "a", ins[0])
        return super().infer(ins)


@with_attributes(
    example=("(N, 3)", "x, 2", "(N, 3)"),
    x="",
    exponent="Floats of one dtype; one of the two may be a number.",
    returns="Of the broadcast shape; NaN where x is below 0 and the exponent is not whole.",
    raises="If the shapes do not broadcast, or the operands are not floats.",
)
def power(x: Operand, exponent: Operand, *, name: str | None = None) -> Value:
    """Return x ** exponent, broadcast."""
    if isinstance(exponent, (int, float, np.integer, np.floating)):
        return apply(Power(float(exponent)), as_value("power", x), name=name)
    return binary(Pow(), x, exponent, name)


@with_attributes(x="Floats of any shape.")
def reciprocal(x: Value, *, name: str | None = None) -> Value:
    """Return 1 / x."""
    return power(x, -1.0, name=name)


def distances_to_whole(x: Array) -> Array:
    """Return the signed distance of each number to the nearest whole one."""
    return np.asarray(x - np.rint(x))


class Rounding(NoGradient, Unary, base=True):
    """The base of roundings to a whole number, in x's dtype."""

    is_exact = True

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return distances_to_whole(ins[0])


class Floor(Rounding, ufunc=np.floor, onnx="Floor"):
    """The largest whole number that is not above x; its gradient is zero."""


class Ceil(Rounding, ufunc=np.ceil, onnx="Ceil"):
    """The smallest whole number that is not below x; its gradient is zero."""


class Round(Rounding, ufunc=np.rint, onnx="Round"):
    """The nearest whole number, the even one of two; its gradient is zero."""

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return distances_to_whole(ins[0] - 0.5)


@dataclass(frozen=True)
class Quantize(NoGradient, Unary):
    """x / step, rounded to the nearest whole number, half to even, as int8 from -127 to 127.

    NaN becomes 0; see `passes/lost_nan.py`.  x is multiplied by 1 / step, rounded to its dtype.
    """

    inplace = ()
    step: float

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return int8 of x's shape; raise ValueError unless x is of floats, the step above 0."""
        if not 0 < self.step < inf:
            raise ValueError(f"step {self.step} is not a number above 0")
        return super().infer(ins).with_dtype("int8")

    def reference(self, ins: Sequence[Array]) -> Array:
        steps = np.rint(ins[0] * ins[0].dtype.type(1 / self.step))
        return np.asarray(np.nan_to_num(steps.clip(-127, 127)), np.int8)

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return distances_to_whole(ins[0] / self.step - 0.5)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        steps = call("round", ins[0] * (1 / self.step))
        return call("minimum", call("maximum", steps, -127), 127).cast("int8")


class WholeQuotient(NoGradient, Binary, base=True):
    """The base of quotients of whole numbers; 0 where b is 0."""

    whole_only = True
    gradient_text = ("", "")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        for role, type in zip(self.roles, ins, strict=True):
            if type.is_float or type.dtype == "bool":
                raise ValueError(f"{role} is {type.dtype}, {self.name} takes whole numbers")
        return super().infer(ins)


class FloorDiv(WholeQuotient, ufunc=np.floor_divide):
    """The quotient a / b rounded down."""


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


class Remainder(Binary, base=True, gradient=("d_out", "-(d_out * ((a - out) / b))")):
    """The base of remainders of a / b; 0 for whole numbers where b is 0."""

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        if ins[0].dtype == "bool":
            raise ValueError(f"a is bool, {self.name} takes numbers")
        return super().infer(ins)

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "call"

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return distances_to_whole(ins[0] / ins[1])


class Mod(Remainder, ufunc=np.mod):
    """The remainder of a by b that has the sign of b, as Python's a % b."""


class Fmod(Remainder, ufunc=np.fmod):
    """The remainder of a by b that has the sign of a, as C's fmod."""


floor = of_one(Floor())
ceil = of_one(Ceil())
round_ = of_one(Round(), "round_")
trunc_div = of_two(TruncDiv())
mod = of_two(Mod())
fmod = of_two(Fmod())


@with_attributes(
    example=("(N, 3)", "x, 2", "(N, 3)"),
    b="Numbers of one dtype; one of the two may be a Python number.",
    returns="Of the broadcast shape; for whole numbers 0 where b is 0.",
    raises="If the shapes do not broadcast, or the dtypes differ.",
)
def floor_div(a: Operand, b: Operand, *, name: str | None = None) -> Value:
    """Return a / b rounded down, broadcast.

    Floats are divided as floor(a / b), whole numbers exactly.
    """
    left, right = pair("floor_div", a, b)
    if left.type.is_float:
        return floor(div(left, right), name=name)
    return left.builder.apply(FloorDiv(), left, right, name=name)
