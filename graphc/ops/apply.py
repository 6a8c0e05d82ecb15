"""Functions that apply an op to values and numbers, and their docstrings.

A function of an op without attributes is made from the op; families of such functions share the
sections of their docstrings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from inspect import cleandoc
from typing import Any, Protocol, TypeVar, cast

import numpy as np

from graphc.base.arguments import takes
from graphc.base.docstrings import with_shared
from graphc.base.errors import GraphError
from graphc.ir.build import Value, apply, not_a_value
from graphc.ir.op import Op
from graphc.ir.tensor_type import FLOATS, TensorType
from graphc.ops.source import constant

Operand = Value | float


def check_float(op: Op, role: str, x: TensorType) -> None:
    """Raise ValueError unless the operand of that role has floats."""
    if not x.is_float:
        raise ValueError(
            f"{role} is {x.dtype}, {op.name} takes floats\ncast it: gc.cast({role}, 'float32')"
        )


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
        if not _fits(number, like.dtype):
            raise GraphError(
                f"{op_name}: {number!r} does not fit {like.name!r}, which is {like.dtype}",
                hint="" if like.type.is_float else f"cast it: gc.cast({like.name}, 'float32')",
            )
        return constant(like.builder, number, like.dtype)
    raise not_a_value(op_name, number)


@lru_cache
def _fits(number: Any, dtype: str) -> bool:
    """Return whether the dtype can represent the number; floats may be rounded."""
    try:
        with np.errstate(all="ignore"):
            held = np.asarray(number).astype(dtype)
            exact = bool(held == number)
    except (OverflowError, TypeError):
        return False
    if dtype in FLOATS:
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
    return with_attributes(of=dtype)(described(function, type(op), called))


def of_two(op: Op, called: str = "") -> OfTwo:
    """Return the function that applies an op to two values, of which one may be a number."""

    def function(a: Operand, b: Operand, *, name: str | None = None) -> Value:
        return binary(op, a, b, name)

    dtype = getattr(op, "result", "") or "the operands' dtype"
    sections = with_attributes(
        example=("(N, 3)", "x, 2", "(N, 3)"),
        of="int64" if getattr(op, "whole_only", False) else "float32",
        b="Values of one dtype whose shapes broadcast.  One may be a number, which takes the\n"
        "other's dtype.",
        returns=f"Of the broadcast shape, and of {dtype}.",
        raises="If the shapes do not broadcast, the dtypes differ, or the function does not take "
        "them.",
    )
    return sections(described(function, type(op), called))


F = TypeVar("F", bound=Callable[..., Any])


def described(function: F, kind: type[Op], called: str = "") -> F:
    """Name a function after its op, and say in the op's words what it returns."""
    made: Any = function
    made.__name__ = made.__qualname__ = called or kind.name
    made.__module__ = kind.__module__
    text = cleandoc(kind.__doc__ or "")
    made.__doc__ = f"Return {text[:1].lower()}{text[1:]}"
    return function


def with_attributes(
    *,
    example: tuple[str, str, str] = ("(N, 3)", "x", "(N, 3)"),
    also: str = "",
    of: str = "float32",
    show: str = "{}.shape",
    found: str = "Value",
    returns: str = "Of x's shape and dtype.",
    raises: str = "",
    **texts: str,
) -> Callable[[F], F]:
    """Return a decorator that adds sections to the docstring of a function that applies an op.

    A call that its signature does not take is a GraphError, with the example as a hint.

    `texts` describes its parameters, but for those that `PARAMETERS` does.  One without a text
    shares that of the next.  `example` has the shape of x, the arguments of a call and what `show`
    prints of its result; x is of the dtype `of`, and `also` has lines that make other operands.
    """
    known = PARAMETERS | texts
    given, arguments, printed = example

    def decorate(function: F) -> F:
        """Add the sections to the docstring of the function."""
        code = function.__code__
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        fields = {
            "parameters": _listed(names, known),
            "found": found,
            "returns": _indented(returns),
            "raises": _indented(raises or (NOT_TAKEN if len(names) > 2 else NOT_TAKEN_X)),
            "given": given.replace("N", "gc.N"),
            "of": of,
            "also": "".join(f">>> {line}\n" for line in also.splitlines()),
            "shown": show.format(f"gc.{function.__name__.rstrip('_')}({arguments})"),
            "printed": printed,
        }
        made = with_shared(_SECTIONS, **fields)(function)
        return cast(F, takes(f"gc.{function.__name__.rstrip('_')}({arguments})")(made))

    return decorate


def _listed(names: Sequence[str], texts: Mapping[str, str]) -> str:
    """Return the entries of parameters; one without a text shares that of the next."""
    entries, shared = [], []
    for name in names:
        shared.append(name)
        if texts.get(name):
            entries.append(f"{', '.join(shared)}\n    {_indented(texts[name])}")
            shared = []
    return "\n".join(entries)


def _indented(text: str) -> str:
    """Return the text of an entry with its further lines indented."""
    return text.replace("\n", "\n    ")


PARAMETERS = {
    "x": "A value of any shape.",
    "axis": "The axis; numbers below 0 count from the last one.",
    "name": "The name of the node.",
}
"""The descriptions of parameters that mean the same in most functions."""
OF_LAYER = "The name of the node, and the start of the names of its parameters."
"""The description of the name in functions that declare parameters."""
NOT_TAKEN_X = "If x has a type that the function does not take."
NOT_TAKEN = "If x has a type that the function does not take, or a number is out of range."

_SECTIONS = """
Parameters
----------
{parameters}

Returns
-------
{found}
    {returns}

Raises
------
GraphError
    {raises}

Examples
--------
>>> net = gc.Net("example")
>>> x = net.input("x", {given}, dtype="{of}")
{also}>>> {shown}
{printed}
"""
