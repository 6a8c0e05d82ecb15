"""Logical ops on bools, bitwise on whole numbers; tests for NaN and infinity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.build import Value, as_value
from graphc.ir.expr import Axis, Expr, call
from graphc.ir.op import Iteration, NoGradient, Op
from graphc.ir.tensor_type import TensorType
from graphc.kernels.iteration_space import elements
from graphc.ops.apply import of_one, of_two, with_attributes
from graphc.ops.elementwise import Binary, Unary
from graphc.ops.functions import abs_
from graphc.ops.select import Equal, NotEqual, equal, less, not_equal

__all__ = ["isfinite", "isinf", "isnan", "logical_and", "logical_not", "logical_or", "logical_xor"]


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


class And(Logic, ufunc=np.bitwise_and):
    """The conjunction a & b: of bools, or of each bit of whole numbers."""


class Or(Logic, ufunc=np.bitwise_or):
    """The disjunction a | b: of bools, or of each bit of whole numbers."""


class Xor(Logic, ufunc=np.bitwise_xor):
    """The exclusive or a ^ b: of bools, or of each bit of whole numbers."""

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return call("not_equal", ins[0], ins[1])


class Not(NoGradient, Unary, ufunc=np.invert):
    """The negation ~x: of bools, or of each bit of whole numbers."""

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


_of_floats = with_attributes(
    show="{}.dtype",
    example=("(N, 3)", "x", "'bool'"),
    x="Floats of any shape.",
    returns="Of x's shape, bool.",
    raises="If x is not of floats: other numbers are always finite.",
)


@_of_floats
def isnan(x: Value, *, name: str | None = None) -> Value:
    """Return whether x is not a number (NaN)."""
    return not_equal(_floats(NotEqual(), x), x, name=name)  # only NaN differs from itself


@_of_floats
def isinf(x: Value, *, name: str | None = None) -> Value:
    """Return whether x is infinite, with either sign."""
    return equal(abs_(_floats(Equal(), x)), np.inf, name=name)


@_of_floats
def isfinite(x: Value, *, name: str | None = None) -> Value:
    """Return whether x is neither infinite nor NaN."""
    return less(abs_(_floats(Equal(), x)), np.inf, name=name)


def _floats(op: Op, x: Value) -> Value:
    """Return x; raise GraphError unless it is of floats."""
    if not as_value(op.name, x).type.is_float:
        raise x.builder.error(op, f"x is {x.dtype}, integers and bools are always finite", (x,))
    return x
