"""The scalar functions of a kernel's steps, computed on vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.backends.native import maths
from graphc.backends.native.ir import Value
from graphc.backends.native.registers import FLOATS, UNSIGNED, Registers
from graphc.kernels.functions import COMPARISONS

_MATHS: dict[str, Callable[[Registers, Value, str], Value]] = {
    "exp": maths.exp,
    "log": maths.log,
    "tanh": maths.tanh,
    "sigmoid": maths.sigmoid,
    "erf": maths.erf,
}
_INTRINSICS = {
    "sqrt": "sqrt",
    "cos": "cos",
    "floor": "floor",
    "ceil": "ceil",
    "round": "roundeven",
}
_PRODUCTS = 8  # integer exponents up to this are products


def apply(
    v: Registers, function: str, args: Sequence[Value], dtypes: Sequence[str], dtype: str
) -> Value:
    """Emit a function of `graphc.kernels.functions.FUNCTIONS` on vectors."""
    if function in COMPARISONS:
        return v.compare(function, args[0], args[1], dtypes[0])
    if function in ("and", "or", "not"):
        return _logic(v, function, [v.truth(x, t) for x, t in zip(args, dtypes, strict=True)])
    if function == "select":
        return v.select(v.truth(args[0], dtypes[0]), args[1], args[2], dtype)
    if function == "cast":
        return v.cast(args[0], dtypes[0], dtype)
    if len(args) == 1:
        return _unary(v, function, args[0], dtype)
    return _binary(v, function, args[0], args[1], dtype)


def _logic(v: Registers, function: str, args: Sequence[Value]) -> Value:
    if function == "not":
        return v.binary("xor", args[0], v.const(True, "bool"), "bool")
    return v.binary(function, args[0], args[1], "bool")


def _unary(v: Registers, function: str, x: Value, dtype: str) -> Value:
    if function in _MATHS:
        return _MATHS[function](v, x, dtype)
    if function == "neg":
        return _negative(v, x, dtype)
    if function == "abs":
        return _absolute(v, x, dtype)
    return v.intrinsic(_INTRINSICS[function], (x,), dtype)


def _negative(v: Registers, x: Value, dtype: str) -> Value:
    if dtype in FLOATS:
        return v.function.value(f"fneg {v.type(dtype)} {x}")
    return v.sub(v.const(0, dtype), x, dtype)


def _absolute(v: Registers, x: Value, dtype: str) -> Value:
    if dtype in FLOATS:
        return v.intrinsic("fabs", (x,), dtype)
    if dtype in UNSIGNED:
        return x
    return v.maximum(x, _negative(v, x, dtype), dtype)


def _binary(v: Registers, function: str, a: Value, b: Value, dtype: str) -> Value:
    if function == "pow":
        exponent = v.number(b, dtype)
        return _general_power(v, a, b, dtype) if exponent is None else power(v, a, exponent, dtype)
    if function == "floor_div":
        return _floor_division(v, a, b, dtype)
    simple = {
        "add": v.add,
        "sub": v.sub,
        "mul": v.mul,
        "div": v.div,
        "maximum": v.maximum,
        "minimum": v.minimum,
    }
    return simple[function](a, b, dtype)


def _floor_division(v: Registers, a: Value, b: Value, dtype: str) -> Value:
    """Emit a // b, 0 where b is 0 as in NumPy; for floats, the floor of the quotient."""
    if dtype in FLOATS:
        return v.intrinsic("floor", (v.div(a, b, dtype),), dtype)
    zero, one = v.const(0, dtype), v.const(1, dtype)
    if dtype in UNSIGNED:
        by_zero = v.compare("equal", b, zero, dtype)
        quotient = v.binary("udiv", a, v.select(by_zero, one, b, dtype), dtype)
        return v.select(by_zero, zero, quotient, dtype)
    # Division by 0, and of the smallest integer by -1, have no meaning in LLVM: divide by 1.
    by_minus_one = v.compare("equal", b, v.const(-1, dtype), dtype)
    by_zero = v.compare("equal", b, zero, dtype)
    divisor = v.select(v.binary("or", by_zero, by_minus_one, "bool"), one, b, dtype)
    quotient = v.binary("sdiv", a, divisor, dtype)
    rest = v.sub(a, v.mul(quotient, divisor, dtype), dtype)
    uneven = v.compare("not_equal", rest, zero, dtype)
    apart = v.compare("less", v.binary("xor", rest, divisor, dtype), zero, dtype)
    down = v.cast(v.binary("and", uneven, apart, "bool"), "bool", dtype)
    floor = v.sub(quotient, down, dtype)
    floor = v.select(by_minus_one, _negative(v, a, dtype), floor, dtype)
    return v.select(by_zero, zero, floor, dtype)


def power(v: Registers, x: Value, exponent: float, dtype: str) -> Value:
    """Emit x to a constant exponent: by products, a root and a quotient where these suffice."""
    size = abs(exponent)
    if size == 0.5 and dtype in FLOATS:
        result = v.intrinsic("sqrt", (x,), dtype)
    elif size == int(size) and size <= _PRODUCTS:
        result = _product(v, x, int(size), dtype)
    else:
        return _general_power(v, x, v.const(exponent, dtype), dtype)
    return v.div(v.const(1, dtype), result, dtype) if exponent < 0 else result


def _product(v: Registers, x: Value, times: int, dtype: str) -> Value:
    """Emit the product of `times` factors x, by repeated squaring."""
    if times == 0:
        return v.const(1, dtype)
    if times == 1:
        return x
    half = _product(v, x, times // 2, dtype)
    square = v.mul(half, half, dtype)
    return v.mul(square, x, dtype) if times % 2 else square


def _general_power(v: Registers, x: Value, y: Value, dtype: str) -> Value:
    return v.intrinsic("pow", (x, y), dtype)
