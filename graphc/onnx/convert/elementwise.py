"""Converters of elementwise ops, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from math import inf
from typing import Any

import numpy as np

import graphc as gc
from graphc.base.work import spend_array
from graphc.ir.build import Value
from graphc.ir.op import Array
from graphc.onnx.call import Call, Result
from graphc.onnx.known import NotSupported, type_of
from graphc.ops.activations.piecewise import PRelu


def _unary(function: Callable[[Value], Value]) -> Callable[[Call], Result]:
    return lambda call: function(call.value(0))


def aligned(call: Call) -> tuple[Value, Value]:
    """Return both operands; before opset 7 the second is broadcast from the axis that is named."""
    a, b = call.value(0), call.value(1)
    if call.version < 7 and call.attribute("broadcast", 0) and "axis" in call.attributes:
        axis = call.attributes["axis"] % max(a.type.rank, 1)
        behind = a.type.rank - axis - b.type.rank
        b = gc.reshape(b, (*b.shape, *(1,) * max(behind, 0)))
    return a, b


def _binary(function: Callable[[Value, Value], Value]) -> Callable[[Call], Result]:
    return lambda call: function(*aligned(call))


def _variadic(function: Callable[[Value, Value], Value]) -> Callable[[Call], Result]:
    return lambda call: reduce(function, call.values())


def _mean(call: Call) -> Value:
    return reduce(gc.add, call.values()) * (1 / len(call))


def _div(call: Call) -> Value:
    a, b = aligned(call)
    return gc.div(a, b) if a.type.is_float else gc.trunc_div(a, b)


def _mod(call: Call) -> Value:
    return (gc.fmod if call.attribute("fmod", 0) else gc.mod)(call.value(0), call.value(1))


def _pow(call: Call) -> Value:
    """Return x ** exponent in the dtype of x."""
    x, exponent = aligned(call)
    if x.type.is_float:
        if call.known(1) and call.array(1).size == 1 and call.array(1).ndim <= x.type.rank:
            return gc.power(x, float(call.number(1)))
        return gc.power(x, gc.cast(exponent, x.dtype))
    return gc.cast(gc.power(gc.cast(x, "float64"), gc.cast(exponent, "float64")), x.dtype)


def _clip(call: Call) -> Value:
    x = call.value(0)
    if call.version < 11:
        low, high = call.attribute("min", -inf), call.attribute("max", inf)
        return gc.clip(x, low, high)
    if all(call.known(i) for i in (1, 2) if call.has(i)) and x.type.is_float:
        low, high = call.number(1, -inf), call.number(2, inf)
        if low <= high:
            return gc.clip(x, float(low), float(high))
    if call.has(1):
        x = gc.maximum(x, call.value(1))
    return gc.minimum(x, call.value(2)) if call.has(2) else x


def _leaky_relu(call: Call) -> Value:
    return gc.leaky_relu(call.value(0), call.attribute("alpha", 0.01))


def _prelu(call: Call) -> Value:
    x, slope = call.value(0), call.value(1)
    if call.version < 7 and slope.type.rank == 1 and x.type.rank > 1 and slope.shape[0] != 1:
        slope = gc.reshape(slope, (slope.shape[0], *(1,) * (x.type.rank - 2)))
    if x.type.rank == 2 and slope.shape == x.shape[1:]:
        return gc.apply(PRelu(), x, slope)
    return gc.where(x < 0, x * slope, x)


def _elu(call: Call) -> Value:
    return gc.elu(call.value(0), call.attribute("alpha", 1.0))


def _selu(call: Call) -> Value:
    x = call.value(0)
    alpha, gamma = call.attribute("alpha", ALPHA), call.attribute("gamma", GAMMA)
    if (alpha, gamma) == (ALPHA, GAMMA):
        return gc.selu(x)
    return gc.elu(x, alpha) * float(gamma)


ALPHA, GAMMA = 1.6732632, 1.050701
"""The default constants of Selu, as a float32 attribute represents them."""


def _gelu(call: Call) -> Value:
    tanh = call.attribute("approximate", "none") == "tanh"
    return gc.gelu(call.value(0), "tanh" if tanh else "erf")


SIXTH = 0.16666667
"""1/6, as a float32 attribute represents it."""


def _hard_sigmoid(call: Call) -> Value:
    x, alpha, beta = call.value(0), call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    if (alpha, beta) == (SIXTH, 0.5):
        return gc.hard_sigmoid(x)
    return gc.clip(x * alpha + beta, 0.0, 1.0)


def _swish(call: Call) -> Value:
    x, alpha = call.value(0), call.attribute("alpha", 1.0)
    return gc.silu(x) if alpha == 1 else x * gc.sigmoid(x * alpha)


def _celu(call: Call) -> Value:
    return gc.celu(call.value(0), call.attribute("alpha", 1.0))


def _thresholded_relu(call: Call) -> Value:
    return gc.thresholded_relu(call.value(0), call.attribute("alpha", 1.0))


def _shrink(call: Call) -> Value:
    return gc.shrink(call.value(0), call.attribute("lambd", 0.5), call.attribute("bias", 0.0))


def _bit_shift(call: Call) -> Value:
    """Shift by a table of powers of two; a shift by all bits leaves only the signs."""
    x, shift = call.value(0), gc.cast(call.value(1), "int64")
    bits = np.dtype(x.dtype).itemsize * 8
    powers = (np.uint64(1) << np.arange(bits, dtype=np.uint64)).astype(x.dtype)
    table = call.constant(powers)
    whole = gc.logical_or(shift < 0, shift >= bits)
    shift = gc.where(whole, 0, shift)
    if call.required("direction") == "LEFT":
        return gc.where(whole, 0, x * gc.gather(table, shift))
    half = gc.floor_div(shift, 2)  # the last power of a signed dtype is negative
    moved = gc.floor_div(x, gc.gather(table, half))
    moved = gc.floor_div(moved, gc.gather(table, shift - half))
    signs = x * 0 if x.dtype.startswith("u") else gc.where(x < 0, -1, x * 0)
    return gc.where(whole, signs, moved)


def _where(call: Call) -> Value:
    return gc.where(call.value(0), call.value(1), call.value(2))


def _is_inf(call: Call) -> Value:
    x = call.value(0)
    up = gc.equal(x, call.constant(inf, x.dtype))
    down = gc.equal(x, call.constant(-inf, x.dtype))
    found = [
        part
        for part, kind in ((up, "detect_positive"), (down, "detect_negative"))
        if call.attribute(kind, 1)
    ]
    return reduce(gc.maximum, found) if found else gc.less(x, x)


def _identity(call: Call) -> Result:
    return call.operand(0)


def _cast(call: Call) -> Value:
    return gc.cast(call.value(0), dtype_of(call.required("to")))


def _cast_like(call: Call) -> Value | Array:
    dtype = type_of(call.operand(1)).dtype
    known = call.operand(0)
    if isinstance(known, np.ndarray):
        spend_array(known.size)
        return known.astype(dtype)
    return gc.cast(call.value(0), dtype)


def dtype_of(number: Any) -> str:
    """Return the dtype for a number of ONNX's; raise NotSupported if graphc does not have it."""
    from onnx import TensorProto, helper

    from graphc.ir.tensor_type import ITEMSIZE

    if isinstance(number, str):  # before opset 6
        number = TensorProto.DataType.Value(number)
    try:
        name = str(helper.tensor_dtype_to_np_dtype(number).name)
    except (KeyError, ValueError):
        name = f"dtype {number}"
    if name not in ITEMSIZE:
        raise NotSupported(f"graphc has no {name}")
    return name


TRIGONOMETRY = (
    *("sin", "cos", "tan", "asin", "acos", "atan"),
    *("sinh", "cosh", "asinh", "acosh", "atanh"),
)

CONVERTERS: dict[str, Callable[[Call], Result]] = {
    **{name.capitalize(): _unary(getattr(gc, name)) for name in TRIGONOMETRY},
    "Abs": _unary(gc.abs),
    "Add": _binary(gc.add),
    "And": _binary(gc.logical_and),
    "BitShift": _bit_shift,
    "BitwiseAnd": _binary(gc.logical_and),
    "BitwiseNot": _unary(gc.logical_not),
    "BitwiseOr": _binary(gc.logical_or),
    "BitwiseXor": _binary(gc.logical_xor),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Ceil": _unary(gc.ceil),
    "Celu": _celu,
    "Clip": _clip,
    "Div": _div,
    "Elu": _elu,
    "Equal": _binary(gc.equal),
    "Erf": _unary(gc.erf),
    "Exp": _unary(gc.exp),
    "Floor": _unary(gc.floor),
    "Gelu": _gelu,
    "Greater": _binary(gc.greater),
    "GreaterOrEqual": _binary(gc.greater_equal),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(gc.hard_swish),
    "Identity": _identity,
    "IsInf": _is_inf,
    "IsNaN": _unary(gc.isnan),
    "LeakyRelu": _leaky_relu,
    "Less": _binary(gc.less),
    "LessOrEqual": _binary(gc.less_equal),
    "Log": _unary(gc.log),
    "Max": _variadic(gc.maximum),
    "Mean": _mean,
    "Min": _variadic(gc.minimum),
    "Mish": _unary(gc.mish),
    "Mod": _mod,
    "Mul": _binary(gc.mul),
    "Neg": _unary(gc.neg),
    "Not": _unary(gc.logical_not),
    "Or": _binary(gc.logical_or),
    "PRelu": _prelu,
    "Pow": _pow,
    "Reciprocal": _unary(gc.reciprocal),
    "Relu": _unary(gc.relu),
    "Round": _unary(gc.round),
    "Selu": _selu,
    "Shrink": _shrink,
    "Sigmoid": _unary(gc.sigmoid),
    "Sign": _unary(gc.sign),
    "Softplus": _unary(gc.softplus),
    "Softsign": _unary(gc.softsign),
    "Sqrt": _unary(gc.sqrt),
    "Sub": _binary(gc.sub),
    "Sum": _variadic(gc.add),
    "Swish": _swish,
    "Tanh": _unary(gc.tanh),
    "ThresholdedRelu": _thresholded_relu,
    "Where": _where,
    "Xor": _binary(gc.logical_xor),
}
