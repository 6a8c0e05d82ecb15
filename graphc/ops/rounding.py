"""Rounding to whole numbers, whole quotients, and remainders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.build import Builder, Value, apply
from graphc.ir.expr import Axis, Expr, call
from graphc.ir.op import Array, Cotangents, Iteration, NoGradient
from graphc.ir.tensor_type import TensorType
from graphc.ops.elementwise import (
    BinaryFunction,
    Function,
    Operand,
    binary,
    div,
    mul,
    neg,
    pair,
    sub,
    unbroadcast,
)

__all__ = ["ceil", "floor", "floor_div", "fmod", "mod", "round_", "trunc_div"]


def distances_to_whole(x: Array) -> Array:
    """Return the signed distance of each number to the nearest whole one."""
    return np.asarray(x - np.rint(x))


class Rounding(NoGradient, Function, base=True):
    """The base of roundings to a whole number, in x's dtype."""

    is_exact = True

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return distances_to_whole(ins[0])


class Floor(Rounding):
    """The largest whole number that is not above x."""

    ufunc = np.floor
    onnx = "Floor"


class Ceil(Rounding):
    """The smallest whole number that is not below x."""

    ufunc = np.ceil
    onnx = "Ceil"


class Round(Rounding):
    """The nearest whole number; of two equally near, the even one."""

    ufunc = np.rint
    onnx = "Round"

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return distances_to_whole(ins[0] - 0.5)


def floor(x: Value, *, name: str | None = None) -> Value:
    """Return the largest whole number that is not above x; its gradient is zero."""
    return apply(Floor(), x, name=name)


def ceil(x: Value, *, name: str | None = None) -> Value:
    """Return the smallest whole number that is not below x; its gradient is zero."""
    return apply(Ceil(), x, name=name)


def round_(x: Value, *, name: str | None = None) -> Value:
    """Return the nearest whole number, the even one of two; its gradient is zero."""
    return apply(Round(), x, name=name)


class WholeQuotient(NoGradient, BinaryFunction, base=True):
    """The base of quotients of whole numbers; 0 where b is 0."""

    gradient_text = ("", "")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        for role, type in zip(self.roles, ins, strict=True):
            if type.is_float or type.dtype == "bool":
                raise ValueError(f"{role} is {type.dtype}, {self.name} takes whole numbers")
        return super().infer(ins)


class FloorDiv(WholeQuotient):
    """The quotient a / b rounded down."""

    name = "floor_div"
    ufunc = np.floor_divide


class TruncDiv(WholeQuotient):
    """The quotient a / b rounded toward zero."""

    name = "trunc_div"
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


class Remainder(BinaryFunction, base=True):
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
    """The remainder that has the sign of b, as Python's a % b."""

    ufunc = np.mod


class Fmod(Remainder):
    """The remainder that has the sign of a, as C's fmod."""

    ufunc = np.fmod


def floor_div(a: Operand, b: Operand, *, name: str | None = None) -> Value:
    """Return a / b rounded down, broadcast; for whole numbers 0 where b is 0.

    Floats are divided as floor(a / b).
    """
    left, right = pair("floor_div", a, b)
    if left.type.is_float:
        return floor(div(left, right), name=name)
    return left.builder.apply(FloorDiv(), left, right, name=name)


def trunc_div(a: Operand, b: Operand, *, name: str | None = None) -> Value:
    """Return a / b of whole numbers rounded toward zero, as in C; 0 where b is 0."""
    return binary(TruncDiv(), a, b, name)


def mod(a: Operand, b: Operand, *, name: str | None = None) -> Value:
    """Return the remainder of a by b that has the sign of b, as Python's a % b."""
    return binary(Mod(), a, b, name)


def fmod(a: Operand, b: Operand, *, name: str | None = None) -> Value:
    """Return the remainder of a by b that has the sign of a, as C's fmod."""
    return binary(Fmod(), a, b, name)
