"""PyTorch's functions of each element, by graphc."""

from __future__ import annotations

from math import log, pi, sqrt
from typing import Any

import graphc as gc
from graphc.ops.activations import PRelu

Value = gc.Value


def _scaled(x: Any, alpha: Any) -> Any:
    return x if alpha == 1 else x * alpha


def add(x: Any, other: Any, *, alpha: Any = 1) -> Value:
    return gc.add(x, _scaled(other, alpha))


def sub(x: Any, other: Any, *, alpha: Any = 1) -> Value:
    return gc.sub(x, _scaled(other, alpha))


def rsub(x: Any, other: Any, *, alpha: Any = 1) -> Value:
    return gc.sub(other, _scaled(x, alpha))


def addcmul(x: Value, a: Value, b: Value, *, value: Any = 1) -> Value:
    return x + _scaled(a * b, value)


def addcdiv(x: Value, a: Value, b: Value, *, value: Any = 1) -> Value:
    return x + _scaled(a / b, value)


def lerp(x: Value, end: Value, weight: Any) -> Value:
    return x + weight * (end - x)


def trunc(x: Value) -> Value:
    return gc.where(x > 0.0, gc.floor(x), gc.ceil(x))


def div(x: Any, other: Any, *, rounding_mode: str | None = None) -> Value:
    if rounding_mode == "floor":
        return gc.floor_div(x, other)
    quotient = gc.div(x, other)
    return trunc(quotient) if rounding_mode == "trunc" else quotient


def clamp(x: Value, min: Any = None, max: Any = None) -> Value:
    if any(isinstance(bound, Value) for bound in (min, max)):
        at_least = x if min is None else gc.maximum(x, gc.cast(min, x.dtype))
        return at_least if max is None else gc.minimum(at_least, gc.cast(max, x.dtype))
    return gc.clip(x, min, max)


def threshold(x: Value, threshold: float, value: float) -> Value:
    if value == 0 and threshold > 0:
        return gc.thresholded_relu(x, threshold)
    return gc.where(x > threshold, x, value)


def softplus(x: Value, beta: float = 1, threshold: float = 20) -> Value:
    curve = gc.softplus(x * beta) / beta
    return gc.where(x * beta > threshold, x, curve)


def hardtanh(x: Value, min_val: float = -1.0, max_val: float = 1.0) -> Value:
    return gc.hard_tanh(x) if (min_val, max_val) == (-1, 1) else gc.clip(x, min_val, max_val)


def glu(x: Value, dim: int = -1) -> Value:
    a, b = gc.split(x, 2, dim)
    return a * gc.sigmoid(b)


def prelu(x: Value, weight: Value) -> Value:
    rows = gc.reshape(x, (-1, 1)) if x.type.rank < 2 else x
    slopes = gc.broadcast_to(weight, rows.shape[1:2])
    return gc.reshape(gc.apply(PRelu(), rows, slopes), x.shape)


def gelu(x: Value, *, approximate: str = "none") -> Value:
    return gc.gelu(x, "tanh" if approximate == "tanh" else "erf")


def round_(x: Value, *, decimals: int = 0) -> Value:
    scale = 10.0 ** abs(decimals)
    if decimals < 0:
        return gc.round(x / scale) * scale
    return gc.round(x * scale) / scale if decimals else gc.round(x)


def fmax(x: Value, other: Value) -> Value:
    larger = gc.where(gc.isnan(other), x, gc.maximum(x, other))
    return gc.where(gc.isnan(x), other, larger)


def fmin(x: Value, other: Value) -> Value:
    smaller = gc.where(gc.isnan(other), x, gc.minimum(x, other))
    return gc.where(gc.isnan(x), other, smaller)


def nan_to_num(
    x: Value, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> Value:
    most = 1.7976931348623157e308
    x = gc.where(gc.isnan(x), nan or 0.0, x)
    x = gc.where(x == float("inf"), most if posinf is None else posinf, x)
    return gc.where(x == -float("inf"), -most if neginf is None else neginf, x)


def isclose(
    x: Value, other: Value, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Value:
    near = gc.isfinite(other) & (gc.abs(x - other) <= atol + rtol * gc.abs(other))
    found = (x == other) | near
    return found | (gc.isnan(x) & gc.isnan(other)) if equal_nan else found


def _holds(x: Value) -> Value:
    return x if x.dtype == "bool" else gc.not_equal(x, 0)


def pow_(x: Any, exponent: Any) -> Value:
    return gc.power(x, exponent)


def _cast(dtype: str) -> Any:
    def cast(x: Value, *, memory_format: object = None) -> Value:
        return gc.cast(x, dtype)

    return cast


def to_bool(x: Value, *, memory_format: object = None) -> Value:
    return _holds(x)


OURS = {
    **{
        name: getattr(gc, name)
        for name in (
            *("abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "cos", "cosh"),
            *("erf", "exp", "expm1", "floor", "isfinite", "isinf", "isnan", "log", "log1p", "neg"),
            *("reciprocal", "sigmoid", "sign", "sin", "sinh", "sqrt", "tan", "tanh"),
            *("maximum", "minimum", "fmod"),
        )
    },
    **{
        f"nn.functional.{name}": getattr(gc, ours)
        for name, ours in (
            *((name, name) for name in ("relu", "relu6", "selu", "silu", "mish", "softsign")),
            *(("hardsigmoid", "hard_sigmoid"), ("hardswish", "hard_swish")),
        )
    },
    "sgn": gc.sign,
    "round": round_,
    "round/decimals_0": round_,
    "round/decimals_3": round_,
    "round/decimals_neg_3": round_,
    "trunc": trunc,
    "frac": lambda x: x - trunc(x),
    "positive": lambda x: gc.reshape(x, x.shape),
    "square": lambda x: x**2,
    "rsqrt": lambda x: gc.power(x, -0.5),
    "exp2": lambda x: gc.power(2.0, x),
    "erfc": lambda x: 1.0 - gc.erf(x),
    "log2": lambda x: gc.log(x) / log(2),
    "log10": lambda x: gc.log(x) / log(10),
    "deg2rad": lambda x: x * (pi / 180),
    "rad2deg": lambda x: x * (180 / pi),
    "logit": lambda x, eps=None: _logit(x, eps),
    "special.ndtr": lambda x: 0.5 * (1.0 + gc.erf(x / sqrt(2))),
    "sinc": lambda x: _sinc(x),
    "hypot": lambda x, y: gc.sqrt(x * x + y * y),
    "logaddexp": lambda x, y: gc.logsumexp(gc.stack(_together(x, y)), 0),
    "xlogy": lambda x, y: gc.where(gc.equal(x, 0.0) & ~gc.isnan(y), 0.0, x * gc.log(y)),
    "add": add,
    "sub": sub,
    "rsub": rsub,
    "mul": gc.mul,
    "__radd__": lambda x, other: other + x,
    "__rsub__": lambda x, other: other - x,
    "__rmul__": lambda x, other: other * x,
    "__rdiv__": lambda x, other: other / x,
    "__rmod__": lambda x, other: other % x,
    "__rpow__": lambda x, other: other**x if not isinstance(other, Value) else other.__pow__(x),
    "__rand__": lambda x, other: other & x,
    "__ror__": lambda x, other: other | x,
    "__rxor__": lambda x, other: other ^ x,
    "bitwise_and": gc.logical_and,
    "bitwise_or": gc.logical_or,
    "bitwise_xor": gc.logical_xor,
    "bitwise_not": gc.logical_not,
    "logical_and": lambda x, y: gc.logical_and(_holds(x), _holds(y)),
    "logical_or": lambda x, y: gc.logical_or(_holds(x), _holds(y)),
    "logical_xor": lambda x, y: gc.logical_xor(_holds(x), _holds(y)),
    "logical_not": lambda x: gc.logical_not(_holds(x)),
    "div/no_rounding_mode": div,
    "div/floor_rounding": div,
    "div/trunc_rounding": div,
    "true_divide": gc.div,
    "floor_divide": gc.floor_div,
    "remainder": gc.mod,
    "pow": pow_,
    "float_power": pow_,
    "max/binary": gc.maximum,
    "min/binary": gc.minimum,
    "fmax": fmax,
    "fmin": fmin,
    "nan_to_num": nan_to_num,
    "isclose": isclose,
    "isposinf": lambda x: x == float("inf"),
    "isneginf": lambda x: x == -float("inf"),
    "eq": gc.equal,
    "ne": gc.not_equal,
    "lt": gc.less,
    "le": gc.less_equal,
    "gt": gc.greater,
    "ge": gc.greater_equal,
    "clamp": clamp,
    "clamp_min": lambda x, min: gc.maximum(x, min),
    "clamp_max": lambda x, max: gc.minimum(x, max),
    "lerp": lerp,
    "addcmul": addcmul,
    "addcdiv": addcdiv,
    "double": _cast("float64"),
    "float": _cast("float32"),
    "int": _cast("int32"),
    "long": _cast("int64"),
    "short": _cast("int16"),
    "char": _cast("int8"),
    "byte": _cast("uint8"),
    "bool": to_bool,
    "nn.functional.celu": lambda x, alpha=1.0: gc.celu(x, alpha),
    "nn.functional.elu": lambda x, alpha=1.0: gc.elu(x, alpha),
    "nn.functional.gelu": gelu,
    "nn.functional.glu": glu,
    "nn.functional.hardshrink": lambda x, lambd=0.5: gc.shrink(x, lambd),
    "nn.functional.softshrink": lambda x, lambd=0.5: gc.shrink(x, lambd, lambd),
    "nn.functional.tanhshrink": lambda x: x - gc.tanh(x),
    "nn.functional.hardtanh": hardtanh,
    "nn.functional.leaky_relu": lambda x, negative_slope=0.01: gc.leaky_relu(x, negative_slope),
    "nn.functional.logsigmoid": lambda x: -gc.softplus(-x),
    "nn.functional.prelu": prelu,
    "nn.functional.softplus": softplus,
    "nn.functional.threshold": threshold,
}


def _logit(x: Value, eps: float | None) -> Value:
    held = x if eps is None else gc.clip(x, eps, 1 - eps)
    return gc.log(held / (1.0 - held))


def _sinc(x: Value) -> Value:
    zero = gc.equal(x, 0.0)
    angle = gc.where(zero, 1.0, x) * pi
    return gc.where(zero, 1.0, gc.sin(angle) / angle)


def _together(x: Value, y: Value) -> list[Value]:
    """Both of one shape."""
    wide = gc.expand(x, y.shape)
    return [wide, gc.broadcast_to(y, wide.shape)]
