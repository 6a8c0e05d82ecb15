"""Python's operators on values."""

from __future__ import annotations

from importlib import import_module
from numbers import Number
from typing import TYPE_CHECKING, Any

from graphc.base.errors import GraphError
from graphc.declare.other_names import Missing

if TYPE_CHECKING:
    from graphc.ir.build import Value


_REFLECTED = {
    "add": "__radd__",
    "subtract": "__rsub__",
    "multiply": "__rmul__",
    "divide": "__rtruediv__",
    "floor_divide": "__rfloordiv__",
    "remainder": "__rmod__",
    "power": "__rpow__",
    "matmul": "__rmatmul__",
    "bitwise_and": "__rand__",
    "bitwise_or": "__ror__",
    "bitwise_xor": "__rxor__",
    "less": "__gt__",
    "less_equal": "__ge__",
    "greater": "__lt__",
    "greater_equal": "__le__",
    "equal": "__eq__",
    "not_equal": "__ne__",
}
"""From NumPy's name of an operator to the method of a value on its right side."""


class Operators(Missing):
    """The operators of a Value.

    Ops import the module of Value, so operators import the modules of ops when they are used.
    """

    __slots__ = ()
    __hash__ = object.__hash__

    def __array_ufunc__(self, ufunc: Any, method: str, *operands: Any, **options: Any) -> Value:
        """Apply an operator whose left side is NumPy's; raise GraphError for NumPy's functions."""
        operator = _REFLECTED.get(ufunc.__name__)
        if operator and method == "__call__" and operands[0] is not self and not options:
            left = operands[0][()] if getattr(operands[0], "ndim", 1) == 0 else operands[0]
            made: Value = getattr(self, operator)(left)  # NumPy wraps numbers that it compares
            return made
        raise GraphError(
            f"np.{ufunc.__name__} computes with numbers, which a value of a net does not have: "
            "it is declared",
            hint="use graphc's own functions: gc.exp(x), gc.maximum(x, 0)",
        )

    def __add__(self, other: Any) -> Value:
        return _made("elementwise.add", self, other)

    def __radd__(self, other: Any) -> Value:
        return _made("elementwise.add", other, self)

    def __sub__(self, other: Any) -> Value:
        return _made("elementwise.sub", self, other)

    def __rsub__(self, other: Any) -> Value:
        return _made("elementwise.sub", other, self)

    def __mul__(self, other: Any) -> Value:
        return _made("elementwise.mul", self, other)

    def __rmul__(self, other: Any) -> Value:
        return _made("elementwise.mul", other, self)

    def __truediv__(self, other: Any) -> Value:
        return _made("elementwise.div", self, other)

    def __rtruediv__(self, other: Any) -> Value:
        return _made("elementwise.div", other, self)

    def __neg__(self) -> Value:
        return _made("elementwise.neg", self)

    def __pow__(self, exponent: float) -> Value:
        return _made("pow.power", self, exponent)

    def __rpow__(self, other: Any) -> Value:
        return _made("pow.power", other, self)

    def __mod__(self, other: Any) -> Value:
        return _made("rounding.mod", self, other)

    def __rmod__(self, other: Any) -> Value:
        return _made("rounding.mod", other, self)

    def __floordiv__(self, other: Any) -> Value:
        return _made("rounding.floor_div", self, other)

    def __rfloordiv__(self, other: Any) -> Value:
        return _made("rounding.floor_div", other, self)

    def __and__(self, other: Any) -> Value:
        return _made("logic.logical_and", self, other)

    def __rand__(self, other: Any) -> Value:
        return _made("logic.logical_and", other, self)

    def __or__(self, other: Any) -> Value:
        return _made("logic.logical_or", self, other)

    def __ror__(self, other: Any) -> Value:
        return _made("logic.logical_or", other, self)

    def __xor__(self, other: Any) -> Value:
        return _made("logic.logical_xor", self, other)

    def __rxor__(self, other: Any) -> Value:
        return _made("logic.logical_xor", other, self)

    def __invert__(self) -> Value:
        return _made("logic.logical_not", self)

    def __abs__(self) -> Value:
        return _made("functions.abs_", self)

    def __matmul__(self, other: Any) -> Value:
        return _made("linalg.matmul", self, other)

    def __rmatmul__(self, other: Any) -> Value:
        return _made("linalg.matmul", other, self)

    def __getitem__(self, key: Any) -> Value:
        return _made("slicing.slice_", self, key)

    def __lt__(self, other: Any) -> Value:
        return _made("select.less", self, other)

    def __le__(self, other: Any) -> Value:
        return _made("select.less_equal", self, other)

    def __gt__(self, other: Any) -> Value:
        return _made("select.greater", self, other)

    def __ge__(self, other: Any) -> Value:
        return _made("select.greater_equal", self, other)

    def __eq__(self, other: object) -> Any:
        if self is other or not isinstance(other, (Operators, Number)):
            return self is other
        return _made("select.equal", self, other)

    def __ne__(self, other: object) -> Any:
        if self is other or not isinstance(other, (Operators, Number)):
            return self is not other
        return _made("select.not_equal", self, other)


def _made(function: str, *operands: Any) -> Value:
    """Return the result of a function of graphc.ops, given as module and name."""
    module, _, name = function.partition(".")
    made: Value = getattr(import_module(f"graphc.ops.{module}"), name)(*operands)
    return made
