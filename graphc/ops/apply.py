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
    {x}
{attributes}name
    The name of the node.

Returns
-------
Value
    Of x's shape and dtype.

Raises
------
GraphError
    If the op does not take x's dtype{or_attributes}.

Examples
--------
>>> net = gc.Net("example")
>>> x = net.input("x", (gc.{shape}{dtype})
>>> gc.{public}(x).shape
({shape}
"""
_ANY = "A value of any shape."

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
        x=_ANY,
        attributes="",
        or_attributes="",
        shape="N, 3)",
    )
    return function


def with_sections(sections: str, **fields: str) -> Callable[[F], F]:
    """Return a decorator that adds sections to a docstring; {public} is the function's name."""

    def decorate(function: F) -> F:
        made: Any = function
        added = sections.format(public=made.__name__, **fields)
        made.__doc__ = f"{cleandoc(made.__doc__)}\n{added}"
        return function

    return decorate


def with_attributes(shape: str = "(N, 3)", /, **attributes: str) -> Callable[[F], F]:
    """Return the decorator for functions of one value that keep its shape.

    `attributes` describes the parameters between x and the name, and x if that is not any value;
    `shape` is that of the example.
    """
    x = attributes.pop("x", _ANY)
    listed = "".join(f"{name}\n    {text}\n" for name, text in attributes.items())
    refused = ", or a number is out of range" if attributes else ""
    return with_sections(
        _OF_ONE, x=x, attributes=listed, or_attributes=refused, shape=shape[1:], dtype=""
    )


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
