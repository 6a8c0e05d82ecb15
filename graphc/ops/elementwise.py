"""Arithmetic on each element, with NumPy's broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graphc.ir.build import Builder, Value
from graphc.ir.by_formula import ByFormula
from graphc.ir.expr import Axis, Expr, call
from graphc.ir.op import Array, Cotangents, Iteration
from graphc.ir.tensor_type import TensorType, broadcast
from graphc.kernels.iteration_space import elements
from graphc.ops.apply import check_float, of_one, of_two
from graphc.ops.sums import unbroadcast

__all__ = ["add", "div", "mul", "neg", "sub"]


class Elementwise(ByFormula, base=True):
    """The base of ops on each element: a ufunc in NumPy, and in kernels the function of their name.

    Other ops override one rule or both.
    """

    takes_pairs = True
    ufunc: ClassVar[np.ufunc]
    whole_only: ClassVar[bool] = False
    """True for ops that take bools or whole numbers, and no floats."""
    gradient_text: ClassVar[tuple[str, ...]] = ()
    kink: ClassVar[str] = ""
    """The operand at whose zeros the derivative jumps or is not finite."""

    def __init_subclass__(
        cls,
        ufunc: np.ufunc | None = None,
        gradient: str | tuple[str, ...] | None = None,
        onnx: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Store what the class statement says: the ufunc, the formulas, ONNX's operator."""
        super().__init_subclass__(**kwargs)
        if ufunc is not None:
            cls.ufunc = ufunc
        if gradient is not None:
            cls.gradient_text = (gradient,) if isinstance(gradient, str) else gradient
        if onnx is not None:
            cls.onnx = onnx

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(self.ufunc(*ins))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return call(self.name, *ins)

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return ins[self.roles.index(self.kink)] if self.kink else None

    def by_row(self, ins: Sequence[TensorType]) -> bool:
        """Return True, also for a call."""
        return True


class Unary(Elementwise, base=True):
    """The base of elementwise ops on one value."""

    roles: ClassVar[tuple[str, ...]] = ("x",)
    inplace: ClassVar[tuple[int, ...]] = (0,)
    floats_only: ClassVar[bool] = True

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return x's type; raise ValueError if it is bool, or not of floats for `floats_only`."""
        (x,) = ins
        if self.floats_only:
            check_float(self, "x", x)
        elif x.dtype == "bool":
            raise ValueError(f"x is bool, {self.name} takes numbers")
        return x

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "elements"


class Called(Unary, base=True):
    """The base of functions of one value that NumPy computes on every backend."""

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "call"


class Binary(Elementwise, base=True):
    """The base of elementwise ops on two values whose shapes broadcast."""

    roles = ("a", "b")
    inplace: ClassVar[tuple[int, ...]] = (0, 1)
    result: ClassVar[str] = ""
    """The dtype of the result, if it is not that of the operands."""
    broadcasts = True

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the broadcast shape with `result` or the dtype, which must be the same."""
        a, b = ins
        if a.dtype != b.dtype:
            raise ValueError(
                f"a is {a.dtype}, b is {b.dtype}\ncast one of them: gc.cast(b, {a.dtype!r})"
            )
        return TensorType(broadcast(a.shape, b.shape), self.result or a.dtype)

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        if ins[0].dtype == "bool":
            return "call"  # in NumPy + of bools is or, * is and
        return elements(ins, self.infer(ins))


class Add(Binary, ufunc=np.add, gradient=("d_out", "d_out"), onnx="Add"):
    """The sum a + b, broadcast."""

    is_linear = True


class Sub(Binary, ufunc=np.subtract, gradient=("d_out", "-d_out"), onnx="Sub"):
    """The difference a - b, broadcast."""

    is_linear = True

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return unbroadcast(dout, ins[0]), neg(unbroadcast(dout, ins[1]))


class Mul(Binary, ufunc=np.multiply, gradient=("d_out * b", "d_out * a"), onnx="Mul"):
    """The product a * b, broadcast."""


class Div(Binary, ufunc=np.divide, gradient=("d_out / b", "-(d_out / b * out)"), onnx="Div"):
    """The quotient a / b, broadcast; floats only."""

    finite_hint = "keep the divisor away from 0: x / gc.maximum(y, 1e-12)"
    kink = "b"

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        check_float(self, "a", ins[0])
        return super().infer(ins)


class Neg(Unary, ufunc=np.negative, gradient="-d_out", onnx="Neg"):
    """The negative -x."""

    is_linear = True
    is_exact = True
    floats_only = False


@dataclass(frozen=True)
class Power(Unary):
    """The power x ** exponent, for a fixed exponent."""

    gradient_text = ("d_out * exponent * x ** (exponent - 1)",)
    exponent: float

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(ins[0] ** ins[0].dtype.type(self.exponent))

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        smooth = self.exponent >= 0 and self.exponent == int(self.exponent)
        return None if smooth else ins[0]

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        """Return sqrt or products for exponents +-0.5 and whole ones up to 16, pow for others."""
        (x,) = ins
        size = abs(self.exponent)
        if size == 0.5:
            value = call("sqrt", x)
        elif size <= 16 and size.is_integer():
            value = _whole_power(x, int(size))
        else:
            return call("pow", x, self.exponent)
        return 1 / value if self.exponent < 0 else value

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return dout * n * x**(n - 1), without the power for exponents 0, 1 and 2."""
        (x,) = ins
        if self.exponent == 0:
            return (None,)
        if self.exponent == 1:
            return (dout,)
        slope = x if self.exponent == 2 else b.apply(Power(self.exponent - 1), x)
        return (mul(dout, mul(slope, self.exponent)),)


def _whole_power(x: Expr, exponent: int) -> Expr:
    """Return x to a power from 0 up, as products."""
    if exponent < 2:
        return x if exponent else x.builder.const(1, x.dtype)
    half = _whole_power(x, exponent // 2)
    return half * half * x if exponent % 2 else half * half


add = of_two(Add())
sub = of_two(Sub())
mul = of_two(Mul())
div = of_two(Div())
neg = of_one(Neg())
