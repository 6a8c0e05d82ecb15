"""Functions that apply an op to values and numbers, and their docstrings.

A function of an op without attributes is made from the op; families of such functions share the
sections of their docstrings.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import cleandoc
from typing import Any, Protocol, TypeVar

import numpy as np

from graphc.base.errors import GraphError
from graphc.ir.build import Value, apply, not_a_value
from graphc.ir.op import Op
from graphc.ir.tensor_type import TensorType
from graphc.ops.source import constant

Operand = Value | float


def binary(op: Op, a: Operand, b: Operand, name: str | None = None) -> Value:
    """Apply a binary op; a Python number takes the dtype of the other operand."""
    left, right = pair(op.name, a, b)
    return left.builder.apply(op, left, right, name=name)


def pair(op_name: str, a: Any, b: Any) -> tuple[Value, Value]:
    """Return both operands as values; raise GraphError if both are numbers."""
    if isinstance(a, Value):
        return a, lift(op_name, b, a)
    if isinstance(b, Value):
        return lift(op_name, a, b), b
    raise GraphError(
        f"{op_name}: neither operand is a value of the net",
        hint="make one of them a value: net.constant(1.0)",
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


class OfOne(Protocol):
    """A function of `graphc` that applies an op without attributes to one value."""

    def __call__(self, x: Value, *, name: str | None = None) -> Value:
        """Return the result for x, as a node of that name."""


class OfTwo(Protocol):
    """A function of `graphc` that applies an op without attributes to two values."""

    def __call__(self, a: Operand, b: Operand, *, name: str | None = None) -> Value:
        """Return the result for a and b, as a node of that name."""


def of_one(op: Op, called: str = "") -> OfOne:
    """Return the function that applies an op to a value; its name is by default the op's."""

    def function(x: Value, *, name: str | None = None) -> Value:
        return apply(op, x, name=name)

    dtype = "int64" if getattr(op, "whole_only", False) else "float32"
    return with_attributes(dtype=dtype)(described(function, type(op), called))


def of_two(op: Op, called: str = "") -> OfTwo:
    """Return the function that applies an op to two values, of which one may be a number."""

    def function(a: Operand, b: Operand, *, name: str | None = None) -> Value:
        return binary(op, a, b, name)

    sections = with_sections(
        _OF_TWO,
        result=getattr(op, "result", "") or "the operands' dtype",
        dtype="int64" if getattr(op, "whole_only", False) else "float32",
    )
    return sections(described(function, type(op), called))


F = TypeVar("F", bound=Callable[..., Value])


def described(function: F, kind: type[Op], called: str = "") -> F:
    """Name a function after its op, and say in the op's words what it returns."""
    made: Any = function
    made.__name__ = made.__qualname__ = called or kind.name
    made.__module__ = kind.__module__
    said = cleandoc(kind.__doc__ or "")
    made.__doc__ = f"Return {said[:1].lower()}{said[1:]}"
    return function


def with_sections(sections: str, **fields: str) -> Callable[[F], F]:
    """Return a decorator that adds sections to a docstring; {public} is the function's name."""

    def decorate(function: F) -> F:
        made: Any = function
        added = sections.format(public=made.__name__.rstrip("_"), **fields)
        made.__doc__ = f"{cleandoc(made.__doc__)}\n{added}"
        return function

    return decorate


def with_attributes(
    *,
    example: tuple[str, str, str] = ("(N, 3)", "x", "(N, 3)"),
    dtype: str = "float32",
    returns: str = "Of x's shape and dtype.",
    **attributes: str,
) -> Callable[[F], F]:
    """Return the decorator for functions of one value.

    `attributes` describes the parameters between x and the name, and x if that is not any value;
    `example` has the shape of x, the arguments of a call and the shape of its result.
    """
    given, arguments, found = example
    return with_sections(
        _OF_ONE,
        x=attributes.pop("x", "A value of any shape."),
        attributes="".join(f"{name}\n    {text}\n" for name, text in attributes.items()),
        returns=returns,
        attribute=", or a number is out of range" if attributes else "",
        given=given.replace("N", "gc.N"),
        dtype=dtype,
        arguments=arguments,
        found=found,
    )


_OF_ONE = """
Parameters
----------
x
    {x}
{attributes}name
    The name of the node.

Returns
-------
Value
    {returns}

Raises
------
GraphError
    If x has a type that the function does not take{attribute}.

Examples
--------
>>> net = gc.Net("example")
>>> x = net.input("x", {given}, dtype="{dtype}")
>>> gc.{public}({arguments}).shape
{found}
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
    If the shapes do not broadcast, the dtypes differ, or the function does not take them.

Examples
--------
>>> net = gc.Net("example")
>>> x = net.input("x", (gc.N, 3), dtype="{dtype}")
>>> gc.{public}(x, 2).shape
(N, 3)
"""
