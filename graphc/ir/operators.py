"""Python's operators on values."""

from __future__ import annotations

from numbers import Number
from typing import TYPE_CHECKING, Any

from graphc.base.door import higher
from graphc.base.errors import GraphError
from graphc.base.other_names import Missing

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


class Operators(Missing):
    """The operators of a Value.

    They call functions of graphc.ops, a higher room, by `graphc.base.door`.
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
        return _made("add", self, other)

    def __radd__(self, other: Any) -> Value:
        return _made("add", other, self)

    def __sub__(self, other: Any) -> Value:
        return _made("sub", self, other)

    def __rsub__(self, other: Any) -> Value:
        return _made("sub", other, self)

    def __mul__(self, other: Any) -> Value:
        return _made("mul", self, other)

    def __rmul__(self, other: Any) -> Value:
        return _made("mul", other, self)

    def __truediv__(self, other: Any) -> Value:
        return _made("div", self, other)

    def __rtruediv__(self, other: Any) -> Value:
        return _made("div", other, self)

    def __neg__(self) -> Value:
        return _made("neg", self)

    def __pow__(self, exponent: float) -> Value:
        return _made("power", self, exponent)

    def __rpow__(self, other: Any) -> Value:
        return _made("power", other, self)

    def __mod__(self, other: Any) -> Value:
        return _made("mod", self, other)

    def __rmod__(self, other: Any) -> Value:
        return _made("mod", other, self)

    def __floordiv__(self, other: Any) -> Value:
        return _made("floor_div", self, other)

    def __rfloordiv__(self, other: Any) -> Value:
        return _made("floor_div", other, self)

    def __and__(self, other: Any) -> Value:
        return _made("and", self, other)

    def __rand__(self, other: Any) -> Value:
        return _made("and", other, self)

    def __or__(self, other: Any) -> Value:
        return _made("or", self, other)

    def __ror__(self, other: Any) -> Value:
        return _made("or", other, self)

    def __xor__(self, other: Any) -> Value:
        return _made("xor", self, other)

    def __rxor__(self, other: Any) -> Value:
        return _made("xor", other, self)

    def __invert__(self) -> Value:
        return _made("not", self)

    def __abs__(self) -> Value:
        return _made("abs", self)

    def __matmul__(self, other: Any) -> Value:
        return _made("matmul", self, other)

    def __rmatmul__(self, other: Any) -> Value:
        return _made("matmul", other, self)

    def __getitem__(self, key: Any) -> Value:
        return _made("slice", self, key)

    def __lt__(self, other: Any) -> Value:
        return _made("less", self, other)

    def __le__(self, other: Any) -> Value:
        return _made("less_equal", self, other)

    def __gt__(self, other: Any) -> Value:
        return _made("greater", self, other)

    def __ge__(self, other: Any) -> Value:
        return _made("greater_equal", self, other)

    def __eq__(self, other: object) -> Any:
        if self is other or not isinstance(other, (Operators, Number)):
            return self is other
        return _made("equal", self, other)

    def __ne__(self, other: object) -> Any:
        if self is other or not isinstance(other, (Operators, Number)):
            return self is not other
        return _made("not_equal", self, other)


def _made(operator: str, *operands: Any) -> Value:
    """Return the result of an operator, by its name in `graphc.base.door`."""
    made: Value = higher(f"Value.{operator}")(*operands)
    return made
