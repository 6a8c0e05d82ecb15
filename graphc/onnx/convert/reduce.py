"""Converters of reductions over axes, and of ops along one axis."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np

import graphc as gc
from graphc.ir.build import Value
from graphc.ir.tensor_type import normal_axes
from graphc.onnx.call import Call, Converter, Result
from graphc.onnx.convert.shape import flattened_at
from graphc.onnx.operands import NotSupported
from graphc.ops.reduce import reduced_shape

Reduce = Callable[[Value, tuple[int, ...], bool], Value]


def _axes(call: Call, rank: int) -> tuple[int, ...]:
    """Return the axes of a reduction: an attribute, in later opsets an operand, else all axes."""
    found = call.ints(1) if call.has(1) else tuple(call.attribute("axes", ()))
    if found or call.attribute("noop_with_empty_axes", 0):
        return found
    return tuple(range(rank))


def _reduction(function: Reduce) -> Converter:
    def convert(call: Call) -> Value:
        x = call.value(0)
        axes = _axes(call, x.type.rank)
        if any(x.shape[axis] == 0 for axis in axes) and call.op in OF_NOTHING:
            return _of_nothing(call, x, axes)
        if not axes and call.op not in EACH:
            return x
        return function(x, axes, bool(call.attribute("keepdims", 1)))

    return convert


OF_NOTHING = {"ReduceMax": -inf, "ReduceMin": inf, "ReduceLogSumExp": -inf, "ReduceProd": 1}
"""The results of reductions over no elements."""
EACH = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")
"""The ops that change an element even if no axis is reduced."""


def _of_nothing(call: Call, x: Value, axes: tuple[int, ...]) -> Value:
    number: Any = OF_NOTHING[call.op]
    if x.dtype == "bool":
        number = number > 0
    elif not x.type.is_float:
        limits = np.iinfo(x.dtype)
        number = limits.max if number > 0 else limits.min
    axes = normal_axes(axes, x.type.rank)
    shape = reduced_shape(x.shape, axes, bool(call.attribute("keepdims", 1)))
    return gc.broadcast_to(call.constant(number, x.dtype), shape)


def _of_floats(function: Callable[..., Value]) -> Reduce:
    """Return a reduction with roots or logarithms that computes integers as floats."""

    def reduce(x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
        if x.type.is_float:
            return function(x, axes, keepdims)
        return gc.cast(function(gc.cast(x, "float64"), axes, keepdims), x.dtype)

    return reduce


def _log_sum(x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    return gc.log(gc.sum(x, axes, keepdims))


def _softmax_axis(call: Call) -> int:
    """Return the axis of softmax and its like; before opset 13 all axes from it on are merged."""
    return int(call.attribute("axis", 1 if call.version < 13 else -1))


def _along_axis(function: Callable[[Value, int], Value]) -> Converter:
    def convert(call: Call) -> Value:
        x, axis = call.value(0), _softmax_axis(call)
        if call.version >= 13 or axis in (x.type.rank - 1, -1):
            return function(x, axis)
        flat = function(flattened_at(x, axis % x.type.rank), -1)
        return gc.reshape(flat, x.shape)

    return convert


def _arg(function: Callable[..., Value]) -> Converter:
    def convert(call: Call) -> Value:
        keepdims = bool(call.attribute("keepdims", 1))
        last = bool(call.attribute("select_last_index", 0))
        return function(call.value(0), call.attribute("axis", 0), keepdims, last=last)

    return convert


def _hardmax(call: Call) -> Value:
    x, axis = call.value(0), _softmax_axis(call)
    rank = x.type.rank
    if call.version < 13 and axis % rank != rank - 1:
        raise NotSupported("the axis must be the last before opset 13")
    axis %= rank
    depth = x.shape[axis]
    if not isinstance(depth, int):
        raise NotSupported("its axis is the batch dimension")
    hot = gc.one_hot(gc.argmax(x, axis), depth, dtype=x.dtype)
    order = list(range(rank - 1))
    order.insert(axis, rank - 1)
    return gc.transpose(hot, order)


def _cumulative(function: Callable[..., Value]) -> Converter:
    def convert(call: Call) -> Value:
        how = {name: bool(call.attribute(name, 0)) for name in ("exclusive", "reverse")}
        return function(call.value(0), int(call.number(1)), **how)

    return convert


def _top_k(call: Call) -> Result:
    count = int(call.number(1)) if call.version >= 10 else call.required("k")
    largest = bool(call.attribute("largest", 1))
    return list(gc.topk(call.value(0), count, call.attribute("axis", -1), largest=largest))


CONVERTERS: dict[str, Converter] = {
    "ArgMax": _arg(gc.argmax),
    "ArgMin": _arg(gc.argmin),
    "CumProd": _cumulative(gc.cumprod),
    "CumSum": _cumulative(gc.cumsum),
    "Hardmax": _hardmax,
    "LogSoftmax": _along_axis(gc.log_softmax),
    "ReduceL1": _reduction(gc.l1_norm),
    "ReduceL2": _reduction(_of_floats(gc.l2_norm)),
    "ReduceLogSum": _reduction(_of_floats(_log_sum)),
    "ReduceLogSumExp": _reduction(_of_floats(gc.logsumexp)),
    "ReduceMax": _reduction(gc.max),
    "ReduceMean": _reduction(_of_floats(gc.mean)),
    "ReduceMin": _reduction(gc.min),
    "ReduceProd": _reduction(gc.prod),
    "ReduceSum": _reduction(gc.sum),
    "ReduceSumSquare": _reduction(gc.sum_squares),
    "Softmax": _along_axis(gc.softmax),
    "TopK": _top_k,
}
