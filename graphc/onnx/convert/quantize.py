"""Converters of quantized numbers, few-bit integers with a scale: x = (q - zero) * scale."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import graphc as gc
from graphc.ir.build import Value
from graphc.onnx.call import Call, Result
from graphc.onnx.convert.elementwise import dtype_of
from graphc.onnx.convert.window import windows_of
from graphc.onnx.known import NotSupported


def _spread(call: Call, position: int, x: Value, axis: int) -> Value:
    """Return a scale or a zero point, shaped to broadcast along the axis of x."""
    value = call.value(position)
    if value.type.rank == 0 or value.shape == (1,):
        return gc.reshape(value, ()) if value.type.rank else value
    if value.type.rank > 1:
        raise NotSupported("scales of blocks")
    shape = [1] * x.type.rank
    axis %= x.type.rank
    return gc.reshape(value, (*shape[:axis], value.shape[0], *shape[axis + 1 :]))


def _rounded(exact: Value, zero: Value | None, dtype: str) -> Value:
    """Round to the nearest integer, ties to even, and saturate to the range of the dtype."""
    if not dtype.startswith(("int", "uint")):
        raise NotSupported(f"quantized to {dtype}")
    limits = np.iinfo(dtype)
    whole = gc.round(exact)
    if zero is not None:
        whole = whole + gc.cast(zero, exact.dtype)
    return gc.cast(gc.clip(whole, float(limits.min), float(limits.max)), dtype)


def _quantize(call: Call) -> Value:
    call.unless(block_size=0)
    x, axis = call.value(0), call.attribute("axis", 1)
    scale = _spread(call, 1, x, axis)
    zero = _spread(call, 2, x, axis) if call.has(2) else None
    number = call.attribute("output_dtype", 0)
    dtype = zero.dtype if zero is not None else dtype_of(number) if number else "uint8"
    return _rounded(x / gc.cast(scale, x.dtype), zero, dtype)


def _dequantize(call: Call) -> Value:
    call.unless(block_size=0)
    x, axis = call.value(0), call.attribute("axis", 1)
    scale = _spread(call, 1, x, axis)
    exact = gc.cast(x, scale.dtype)
    if call.has(2):
        exact = exact - gc.cast(_spread(call, 2, x, axis), scale.dtype)
    return exact * scale


def _whole(call: Call, position: int, zero: int, axis: int) -> Value:
    """Return the numbers minus their zero point, as floats that hold all sums of them exactly."""
    x = gc.cast(call.value(position), "float64")
    if not call.has(zero):
        return x
    return x - gc.cast(_spread(call, zero, x, axis), "float64")


def _matmul_integer(call: Call) -> Value:
    product = gc.matmul(_whole(call, 0, 2, -2), _whole(call, 1, 3, -1))
    return gc.cast(product, "int32")


def _qlinear_matmul(call: Call) -> Value:
    product = gc.matmul(_whole(call, 0, 2, -2), _whole(call, 3, 5, -1))
    axes = {1: -2, 4: -1, 6: -1}
    scales = [gc.cast(_spread(call, i, product, a), "float64") for i, a in axes.items()]
    exact = product * (scales[0] * scales[1] / scales[2])
    return _rounded(exact, _spread(call, 7, product, -1), call.type(7).dtype)


def _convolved(call: Call, x: Value, weight: Value) -> Value:
    kernel = tuple(size for size in weight.shape[2:] if isinstance(size, int))
    w = windows_of(call, kernel)
    groups = call.attribute("group", 1)
    how = {"padding": w.padding, "dilation": w.dilation, "groups": groups}
    return gc.conv(x, weight, None, w.stride, **how)


def _conv_integer(call: Call) -> Value:
    return gc.cast(_convolved(call, _whole(call, 0, 2, 1), _whole(call, 1, 3, 0)), "int32")


def _qlinear_conv(call: Call) -> Value:
    total = _convolved(call, _whole(call, 0, 2, 1), _whole(call, 3, 5, 0))
    if call.has(8):
        bias = gc.cast(call.value(8), "float64")
        total = total + gc.reshape(bias, (bias.shape[0], *(1,) * (total.type.rank - 2)))
    scales = [gc.cast(_spread(call, i, total, 1), "float64") for i in (1, 4, 6)]
    exact = total * (scales[0] * scales[1] / scales[2])
    return _rounded(exact, _spread(call, 7, total, 1), call.type(7).dtype)


CONVERTERS: dict[str, Callable[[Call], Result]] = {
    "ConvInteger": _conv_integer,
    "DequantizeLinear": _dequantize,
    "MatMulInteger": _matmul_integer,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "QuantizeLinear": _quantize,
}
