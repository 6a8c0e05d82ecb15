"""Arithmetic on each element, with NumPy's broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from graphc.base.errors import GraphError
from graphc.ir.build import Builder, Value, apply, not_a_value
from graphc.ir.expr import Axis, Expr, call
from graphc.ir.op import Array, Cotangents, Iteration, Op
from graphc.ir.tensor_type import TensorType, broadcast
from graphc.kernels.iteration_space import broadcast_kind, leads
from graphc.ops.source import constant

__all__ = ["add", "div", "mul", "neg", "sub"]

Operand = Value | float


class Elementwise(Op, base=True):
    """The base of ops on each element: a ufunc in NumPy, and in kernels the function of their name.

    An op that is neither has rules of its own.
    """

    ufunc: ClassVar[np.ufunc]
    whole_only: ClassVar[bool] = False
    """Whether it takes bools or whole numbers, and no floats."""

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(self.ufunc(*ins))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return call(self.name, *ins)


class Unary(Elementwise, base=True):
    """The base of elementwise ops on one value."""

    roles: ClassVar[tuple[str, ...]] = ("x",)
    inplace: ClassVar[tuple[int, ...]] = (0,)
    floats_only: ClassVar[bool] = True

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
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


def check_float(op: Op, role: str, x: TensorType) -> None:
    """Raise ValueError unless an operand is of floats."""
    if not x.is_float:
        raise ValueError(
            f"{role} is {x.dtype}, {op.name} takes floats\ncast it: gc.cast({role}, 'float32')"
        )


class Add(Binary):
    """The sum a + b, broadcast."""

    ufunc = np.add
    is_linear = True
    onnx = "Add"
    gradient_text = ("d_out", "d_out")

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return unbroadcast(dout, ins[0]), unbroadcast(dout, ins[1])


class Sub(Binary):
    """The difference a - b, broadcast."""

    ufunc = np.subtract
    is_linear = True
    onnx = "Sub"
    gradient_text = ("d_out", "-d_out")

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return unbroadcast(dout, ins[0]), neg(unbroadcast(dout, ins[1]))


class Mul(Binary):
    """The product a * b, broadcast."""

    ufunc = np.multiply
    onnx = "Mul"
    gradient_text = ("d_out * b", "d_out * a")

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return unbroadcast(mul(dout, ins[1]), ins[0]), unbroadcast(mul(dout, ins[0]), ins[1])


class Div(Binary):
    """The quotient a / b, broadcast; floats only."""

    ufunc = np.divide
    finite_hint = "keep the divisor away from 0: x / gc.maximum(y, 1e-12)"
    onnx = "Div"
    gradient_text = ("d_out / b", "-d_out * out / b")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        check_float(self, "a", ins[0])
        return super().infer(ins)

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return ins[1]

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        da = div(dout, ins[1])
        return unbroadcast(da, ins[0]), unbroadcast(neg(mul(da, out)), ins[1])


class Neg(Unary):
    """The negative -x."""

    ufunc = np.negative
    is_linear = True
    is_exact = True
    floats_only = False
    onnx = "Neg"
    gradient_text = ("-d_out",)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (neg(dout),)


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
        (x,) = ins
        if self.exponent == 0:
            return (None,)
        if self.exponent == 1:
            return (dout,)
        slope = x if self.exponent == 2 else b.apply(Power(self.exponent - 1), x)
        return (mul(dout, mul(slope, self.exponent)),)


def elements(ins: Sequence[TensorType], result: TensorType) -> Iteration:
    """Return "elements" for an elementwise op, or "call" if no kernel can compute it.

    A kernel computes a matrix; every operand must broadcast to it by a broadcast kind.
    """
    fits = any(
        all(broadcast_kind(x.shape, result.shape, lead) is not None for x in ins)
        for lead in leads(result.shape)
    )
    return "elements" if fits else "call"


def _whole_power(x: Expr, exponent: int) -> Expr:
    if exponent < 2:
        return x if exponent else x.builder.const(1, x.dtype)
    half = _whole_power(x, exponent // 2)
    return half * half * x if exponent % 2 else half * half


def unbroadcast(value: Value, operand: Value) -> Value:
    """Sum a cotangent over the axes that `operand` was broadcast over."""
    if value.shape == operand.shape:
        return value
    from graphc.ops.reduce import sum_
    from graphc.ops.shape import reshape

    pad = len(value.shape) - len(operand.shape)
    shape = (1,) * pad + operand.shape
    axes = tuple(i for i, dim in enumerate(shape) if dim == 1 and value.shape[i] != 1)
    if axes:
        value = sum_(value, axes, keepdims=True)
    return value if value.shape == operand.shape else reshape(value, operand.shape)


def binary(op: Op, a: Operand, b: Operand, name: str | None = None) -> Value:
    """Apply a binary op; a Python number takes the dtype of the other operand."""
    left, right = pair(op.name, a, b)
    return left.builder.apply(op, left, right, name=name)


class OfOne(Protocol):
    """A function of `graphc` that applies an op without attributes to one value."""

    def __call__(self, x: Value, *, name: str | None = None) -> Value: ...


class OfTwo(Protocol):
    """A function of `graphc` that applies an op without attributes to two values."""

    def __call__(self, a: Operand, b: Operand, *, name: str | None = None) -> Value: ...


def of_one(op: Op, called: str = "") -> OfOne:
    """Return the function that applies an op to a value; its name is by default the op's."""

    def function(x: Value, *, name: str | None = None) -> Value:
        return apply(op, x, name=name)

    return described(function, type(op), _OF_ONE, called)


def of_two(op: Op, called: str = "") -> OfTwo:
    """Return the function that applies an op to two values, of which one may be a number."""

    def function(a: Operand, b: Operand, *, name: str | None = None) -> Value:
        return binary(op, a, b, name)

    return described(function, type(op), _OF_TWO, called)


_OF_ONE = """
Parameters
----------
x
    A value of any shape.
name
    The name of the node.

Returns
-------
Value
    Of x's shape and dtype.

Raises
------
GraphError
    If the op does not take x's dtype.

Examples
--------
>>> net = gc.Net("example")
>>> x = net.input("x", (gc.N, 3){dtype})
>>> gc.{public}(x).shape
(N, 3)
"""

_OF_TWO = """
Parameters
----------
a, b
    Values of one dtype whose shapes broadcast.  One may be a number, which takes the other's dtype.
name
    The name of the node.

Returns
-------
Value
    Of the broadcast shape, and of {result}.

Raises
------
GraphError
    If the shapes do not broadcast, the dtypes differ, or the op does not take them.

Examples
--------
>>> net = gc.Net("example")
>>> x = net.input("x", (gc.N, 3){dtype})
>>> gc.{public}(x, 2).shape
(N, 3)
"""

F = TypeVar("F", bound=Callable[..., Value])


def described(function: F, kind: type[Op], sections: str, called: str = "") -> F:
    """Name a function, and say in the words of its op what it returns.

    `sections` are those of the docstring after that.
    """
    made: Any = function
    made.__name__ = made.__qualname__ = called or kind.name
    made.__module__ = kind.__module__
    said = cleandoc(kind.__doc__ or "")
    made.__doc__ = f"Return {said[:1].lower()}{said[1:]}\n" + sections.format(
        public=made.__name__.rstrip("_"),
        result=getattr(kind, "result", "") or "the operands' dtype",
        dtype=', dtype="int64"' if getattr(kind, "whole_only", False) else "",
    )
    return function


def pair(op_name: str, a: Any, b: Any) -> tuple[Value, Value]:
    """Return both operands as values; raise GraphError if both are numbers."""
    if isinstance(a, Value):
        return a, lift(op_name, b, a)
    if isinstance(b, Value):
        return lift(op_name, a, b), b
    raise GraphError(
        f"{op_name}: neither operand is a value of the net",
        hint="numbers alone become values by net.constant(1.0)",
    )


def lift(op_name: str, number: Any, like: Value) -> Value:
    """Return a Python number as a constant of `like`'s dtype; return a value unchanged."""
    if isinstance(number, Value):
        return number
    if isinstance(number, (bool, int, float, np.number, np.bool_)):
        if not _fits(number, like.type):
            raise GraphError(
                f"{op_name}: {number!r} does not fit {like.name!r}, which is {like.dtype}",
                hint="" if like.type.is_float else f"cast it: gc.cast({like.name}, 'float32')",
            )
        return constant(like.builder, number, like.dtype)
    raise not_a_value(op_name, number)


def _fits(number: Any, type: TensorType) -> bool:
    """Return whether the dtype can represent the number; floats may be rounded."""
    try:
        with np.errstate(all="ignore"):
            held = np.asarray(number).astype(type.dtype)
            exact = bool(held == number)
    except (OverflowError, TypeError):
        return False
    if type.is_float:
        return bool(np.isfinite(held)) or not np.isfinite(number)
    return exact


add = of_two(Add())
sub = of_two(Sub())
mul = of_two(Mul())
div = of_two(Div())
neg = of_one(Neg())
