"""Converters of elementwise ops, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from math import inf

import numpy as np
from onnx import TensorProto

import graphc as gc
from graphc.base.work import spend_array
from graphc.ir.build import Value
from graphc.ir.op import Array
from graphc.onnx.call import Call, Converter, dtype_of
from graphc.onnx.export.standard import ONE_TO_ONE
from graphc.onnx.narrow import NARROW
from graphc.ops.activations import PRelu
from graphc.ops.rounding import RoundBfloat16
from graphc.ops.shape import as_dtype


def _aligned(call: Call) -> list[Value]:
    """Return all operands; before opset 7 the second is broadcast from the axis that is named."""
    values = call.values()
    if call.version < 7 and call.attribute("broadcast", 0) and "axis" in call.attributes:
        a, b = values
        axis = call.attributes["axis"] % max(a.type.rank, 1)
        behind = a.type.rank - axis - b.type.rank
        values[1] = gc.reshape(b, (*b.shape, *(1,) * max(behind, 0)))
    return values


def _applied(function: Callable[..., Value], fields: Mapping[str, str] | None = None) -> Converter:
    """Return a converter to a function of the operands, and of `fields` by ONNX attributes."""

    def convert(call: Call) -> Value:
        names = {name: field for name, field in (fields or {}).items() if name in call.attributes}
        given = {field: call.attributes[name] for name, field in names.items()}
        return function(*_aligned(call), **given)

    return convert


def _variadic(function: Callable[[Value, Value], Value]) -> Converter:
    return lambda call: reduce(function, call.values())


def _div(call: Call) -> Value:
    a, b = _aligned(call)
    return gc.div(a, b) if a.type.is_float else gc.trunc_div(a, b)


def _pow(call: Call) -> Value:
    """Return x ** exponent in the dtype of x."""
    x, exponent = _aligned(call)
    if x.type.is_float:
        if call.known(1) and call.array(1).size == 1 and call.array(1).ndim <= x.type.rank:
            return gc.power(x, float(call.number(1)))
        return gc.power(x, as_dtype(exponent, x.dtype))
    wide = gc.power(gc.cast(x, "float64"), as_dtype(exponent, "float64"))
    return gc.cast(wide, x.dtype)


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


def _prelu(call: Call) -> Value:
    x, slope = call.value(0), call.value(1)
    if call.version < 7 and slope.type.rank == 1 and x.type.rank > 1 and slope.shape[0] != 1:
        slope = gc.reshape(slope, (slope.shape[0], *(1,) * (x.type.rank - 2)))
    if x.type.rank == 2 and slope.shape == x.shape[1:]:
        return gc.apply(PRelu(), x, slope)
    return gc.where(x < 0, x * slope, x)


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


def _bit_shift(call: Call) -> Value:
    """Shift by a table of powers of two; a shift by all bits leaves only the signs."""
    x, shift = call.value(0), as_dtype(call.value(1), "int64")
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


def _is_inf(call: Call) -> Value:
    x = call.value(0)
    found = gc.isinf(x)
    if not call.attribute("detect_positive", 1):
        found = gc.logical_and(found, x < 0)
    if not call.attribute("detect_negative", 1):
        found = gc.logical_and(found, x > 0)
    return found


def _cast(call: Call) -> Value:
    """Return a value as it is held; one that was rounded on its way to FLOAT is rounded here."""
    x, to = call.value(0), call.required("to")
    if to == TensorProto.FLOAT and call.narrow[0]:
        if isinstance(x.node.op, RoundBfloat16):
            return gc.apply(x.node.op, Value(x.builder, x.node.inputs[0]))
        return gc.apply(RoundBfloat16(), x) if call.scope.reading.by_graphc else x
    return as_dtype(x, "float32") if to == NARROW else gc.cast(x, dtype_of(to))


def _cast_like(call: Call) -> Value | Array:
    dtype, known = call.type(1).dtype, call.operand(0)
    if isinstance(known, np.ndarray):
        spend_array(known.size)
        return known.astype(dtype)
    return gc.cast(call.value(0), dtype)


LOGIC: dict[str, Callable[..., Value]] = {
    "And": gc.logical_and,
    "Not": gc.logical_not,
    "Or": gc.logical_or,
    "Xor": gc.logical_xor,
}
"""The functions of bools, and of integers bit by bit."""

CONVERTERS: dict[str, Converter] = {
    **{
        name: _applied(getattr(gc, op.name), fields)
        for op, (name, fields) in ONE_TO_ONE.items()
        if hasattr(gc, op.name)
    },
    **{f"{bits}{name}": _applied(f) for name, f in LOGIC.items() for bits in ("", "Bitwise")},
    "BitShift": _bit_shift,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Clip": _clip,
    "Div": _div,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "Identity": lambda call: call.operand(0),
    "IsInf": _is_inf,
    "IsNaN": _applied(gc.isnan),
    "Max": _variadic(gc.maximum),
    "Mean": lambda call: reduce(gc.add, call.values()) * (1 / len(call)),
    "Min": _variadic(gc.minimum),
    "Mod": lambda call: (gc.fmod if call.attribute("fmod", 0) else gc.mod)(*call.values()),
    "PRelu": _prelu,
    "Pow": _pow,
    "Reciprocal": _applied(gc.reciprocal),
    "Selu": _selu,
    "Sum": _variadic(gc.add),
    "Swish": _swish,
}
