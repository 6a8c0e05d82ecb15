"""Python's operators on values."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Number
from typing import TYPE_CHECKING, Any

from graphc.base.door import higher
from graphc.base.errors import GraphError
from graphc.base.missing import Missing

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
"""For each operator of NumPy, the method of a value on its right side."""


def _made(operator: str, *operands: Any) -> Value:
    """Return the result of an operator, by its name in `graphc.base.door`."""
    made: Value = higher(f"Value.{operator}")(*operands)
    return made


def _of_value(operator: str, reflected: bool = False) -> Callable[[Any, Any], Value]:
    """Return the method of an operator; with `reflected` the value is its right operand."""
    if reflected:
        return lambda value, left: _made(operator, left, value)
    return lambda value, right: _made(operator, value, right)


class Operators(Missing):
    """The operators of a Value, which call functions of graphc.ops by `graphc.base.door`."""

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

    __add__ = _of_value("add")
    __radd__ = _of_value("add", reflected=True)
    __sub__ = _of_value("sub")
    __rsub__ = _of_value("sub", reflected=True)
    __mul__ = _of_value("mul")
    __rmul__ = _of_value("mul", reflected=True)
    __truediv__ = _of_value("div")
    __rtruediv__ = _of_value("div", reflected=True)
    __floordiv__ = _of_value("floor_div")
    __rfloordiv__ = _of_value("floor_div", reflected=True)
    __mod__ = _of_value("mod")
    __rmod__ = _of_value("mod", reflected=True)
    __pow__ = _of_value("power")
    __rpow__ = _of_value("power", reflected=True)
    __matmul__ = _of_value("matmul")
    __rmatmul__ = _of_value("matmul", reflected=True)
    __and__ = _of_value("and")
    __rand__ = _of_value("and", reflected=True)
    __or__ = _of_value("or")
    __ror__ = _of_value("or", reflected=True)
    __xor__ = _of_value("xor")
    __rxor__ = _of_value("xor", reflected=True)
    __lt__ = _of_value("less")
    __le__ = _of_value("less_equal")
    __gt__ = _of_value("greater")
    __ge__ = _of_value("greater_equal")
    __getitem__ = _of_value("slice")

    def __neg__(self) -> Value:
        return _made("neg", self)

    def __abs__(self) -> Value:
        return _made("abs", self)

    def __invert__(self) -> Value:
        return _made("not", self)

    def __eq__(self, other: object) -> Any:
        if self is other or not isinstance(other, (Operators, Number)):
            return self is other
        return _made("equal", self, other)

    def __ne__(self, other: object) -> Any:
        if self is other or not isinstance(other, (Operators, Number)):
            return self is not other
        return _made("not_equal", self, other)
