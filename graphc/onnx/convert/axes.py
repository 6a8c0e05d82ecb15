"""Converters of ops over axes: reductions, softmax, reshapes, slices and joins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, inf, isfinite
from typing import Any

import numpy as np

import graphc as gc
from graphc.base.work import spend_array
from graphc.ir.build import Value
from graphc.ir.op import Array
from graphc.ir.tensor_type import Batch, Dim, N, broadcast, count, normal_axes
from graphc.onnx.call import (
    Call,
    Converter,
    NotSupported,
    Operand,
    Result,
    RowIndices,
    Weight,
    dims_array,
    type_of,
)
from graphc.ops.sums import reduced_shape


def _shape(call: Call) -> Array:
    dims = call.type(0).shape
    return dims_array(dims[call.attribute("start", 0) : call.attribute("end")])


def _reshape(call: Call) -> Operand:
    x = call.operand(0)
    wanted = call.dims(1) if call.version >= 5 else tuple(call.required("shape"))
    shape = type_of(x).shape
    if not call.attribute("allowzero", 0):
        wanted = tuple(shape[i] if dim == 0 else dim for i, dim in enumerate(wanted))
    return reshaped(call, x, wanted)


def reshaped(call: Call, x: Operand, shape: Sequence[Dim]) -> Operand:
    """Reshape an operand; a known array stays a known array."""
    if isinstance(x, Weight):
        return gc.reshape(call.scope.value(x), tuple(shape))
    if isinstance(x, np.ndarray):
        return x.reshape([dim for dim in shape if isinstance(dim, int)])
    same = x.shape == tuple(shape) and not call.scope.reading.by_graphc
    return x if same else gc.reshape(x, tuple(shape))


def flattened_at(x: Value, axis: int) -> Value:
    """Return x as a matrix: the axes before `axis` are its rows, the others its columns."""
    rows, columns = count(x.shape[:axis]), count(x.shape[axis:])
    return x if x.shape == (rows, columns) else gc.reshape(x, (rows, columns))


def _flatten(call: Call) -> Operand:
    x, axis = call.value(0), call.attribute("axis", 1)
    axis = axis % x.type.rank if axis < 0 else axis
    flat = flattened_at(x, axis)
    if axis == 1 and x.type.rank > 2:
        call.scope.reading.flattened[call.name] = x
    return flat


def _concat(call: Call) -> Value:
    axis = call.attribute("axis", 1)
    if call.scope.reading.by_graphc:
        return gc.concat(call.values(), axis)
    values = [value for value in call.values() if value.shape != (0,)]
    if len(values) < 2:
        return values[0] if values else call.value(0)
    return gc.concat(values, axis)


def _axes_of(call: Call) -> tuple[int, ...] | None:
    """Return the axes of a node: an operand, in earlier opsets an attribute, or None."""
    if call.has(1):
        return call.ints(1)
    axes = call.attribute("axes")
    return None if axes is None else tuple(axes)


def _squeeze(call: Call) -> Operand:
    x = call.operand(0)
    shape = type_of(x).shape
    axes = _axes_of(call)
    if axes is None:
        dropped = {i for i, dim in enumerate(shape) if dim == 1}
    else:
        dropped = {axis % len(shape) for axis in axes}
    if any(shape[axis] != 1 for axis in dropped):
        raise NotSupported("an axis that is squeezed has more than one element")
    return reshaped(call, x, [dim for i, dim in enumerate(shape) if i not in dropped])


def _unsqueeze(call: Call) -> Operand:
    x = call.operand(0)
    shape, axes = type_of(x).shape, _axes_of(call) or ()
    rank = len(shape) + len(axes)
    new = {axis % rank for axis in axes}
    if len(new) != len(axes):
        raise NotSupported("an axis appears twice")
    left = iter(shape)
    return reshaped(call, x, [1 if i in new else next(left) for i in range(rank)])


def _constant(call: Call) -> Array:
    dtypes: dict[str, type] = {"value_float": np.float32, "value_floats": np.float32}
    dtypes |= {"value_int": np.int64, "value_ints": np.int64}
    for name in ("value", *dtypes):
        if name in call.attributes:
            return np.asarray(call.attributes[name], dtypes.get(name))
    raise NotSupported("a constant of text, or a sparse one")


def _constant_of_shape(call: Call) -> Result:
    item = call.attribute("value", np.zeros(1, np.float32)).reshape(-1)[0]
    shape = call.dims(0)
    if any(isinstance(dim, Batch) for dim in shape):
        return gc.broadcast_to(call.constant(item), shape)
    sizes = [dim for dim in shape if isinstance(dim, int)]
    return np.broadcast_to(item, sizes)


def _range(call: Call) -> Result:
    start, limit, delta = (call.number(i) for i in range(3))
    if (start, limit, delta) == (0, N, 1):
        return RowIndices(np.array(1), np.zeros((), np.int64))
    if isinstance(limit, Batch):
        raise NotSupported("a range that ends at the batch dimension does not count its rows")
    if delta == 0 or not isfinite(limit - start):
        raise NotSupported("a range without an end")
    spend_array(max(ceil((limit - start) / delta), 0))
    return np.asarray(np.arange(start, limit, delta)).astype(call.array(0).dtype)


def _slice(call: Call) -> Value:
    x = call.value(0)
    if call.version < 10:
        starts, ends = call.required("starts"), call.required("ends")
        axes, steps = call.attribute("axes"), None
    else:
        starts, ends = call.ints(1), call.dims(2)
        axes = call.ints(3) if call.has(3) else None
        steps = call.ints(4) if call.has(4) else None
    cuts = [slice(None)] * x.type.rank
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = (axes[i] if axes else i) % x.type.rank
        cuts[axis] = _cut(x.shape[axis], start, end, steps[i] if steps else 1)
    return sliced(call, x, cuts)


def _cut(dim: Dim, start: int, end: Dim, step: int) -> slice:
    if isinstance(dim, Batch):  # ONNX advises the largest integer as an end that is not known
        if start == 0 and step == 1 and (end == dim or (isinstance(end, int) and end > 2**30)):
            return slice(None)
        raise NotSupported("the batch dimension is sliced")
    if not isinstance(end, int) or step == 0:
        raise NotSupported("a slice ends at the batch dimension")
    span = range(*slice(start, end, step).indices(dim))
    if not span:
        return slice(0, 0)
    return slice(span.start, span.stop if span.stop >= 0 else None, span.step)


def sliced(call: Call, x: Value, cuts: Sequence[slice]) -> Value:
    """Slice x by one slice for each axis; the result may be empty."""
    for axis, cut in enumerate(cuts):
        dim = x.shape[axis]
        if isinstance(dim, int) and cut != slice(None) and not range(dim)[cut]:
            shape = list(x.shape)
            shape[axis] = 0
            return gc.broadcast_to(call.constant(np.zeros((1,) * len(shape), x.dtype)), shape)
    return x[tuple(cuts)]


def split_axis(call: Call) -> tuple[Value, int, int]:
    """Return the operand to split, the axis, and the size of the axis."""
    x = call.value(0)
    axis = call.attribute("axis", 0) % x.type.rank
    dim = x.shape[axis]
    if not isinstance(dim, int):
        raise NotSupported("the batch dimension is split")
    return x, axis, dim


def _split(call: Call) -> list[Value]:
    x, axis, dim = split_axis(call)
    sizes = call.ints(1) if call.has(1) else call.attribute("split")
    if sizes is None:
        parts = call.attribute("num_outputs", len(call.outputs))
        if parts != len(call.outputs):
            raise NotSupported(f"num_outputs={parts} for {len(call.outputs)} outputs")
        each = -(-dim // parts)
        sizes = [max(0, min(each, dim - i * each)) for i in range(parts)]
    if sum(sizes) != dim or len(sizes) != len(call.outputs):
        raise NotSupported(f"{dim} elements are split into {tuple(sizes)}")
    return split_at(call, x, axis, sizes)


def split_at(call: Call, x: Value, axis: int, sizes: Sequence[int]) -> list[Value]:
    """Return parts of these sizes along an axis."""
    before: list[slice] = [slice(None)] * axis
    return [
        sliced(call, x, [*before, slice(int(end) - size, int(end))])
        for size, end in zip(sizes, np.cumsum(sizes), strict=True)
    ]


Reduce = Callable[[Value, tuple[int, ...], bool], Value]


def _axes(call: Call, rank: int) -> tuple[int, ...]:
    """Return the axes of a reduction: an attribute, in later opsets an operand, else all axes."""
    found = call.ints(1) if call.has(1) else tuple(call.attribute("axes", ()))
    if found or call.attribute("noop_with_empty_axes", 0):
        return found
    return tuple(range(rank))


def _reduction(function: Reduce) -> Converter:
    def convert(call: Call) -> Value:
        """Return the reduction that the call asks for."""
        x = call.value(0)
        axes = _axes(call, x.type.rank)
        if any(x.shape[axis] == 0 for axis in axes) and call.op in EMPTY_RESULTS:
            return _reduced_empty(call, x, axes)
        if not axes and call.op not in CHANGES_ELEMENTS:
            return x
        return function(x, axes, bool(call.attribute("keepdims", 1)))

    return convert


EMPTY_RESULTS = {"ReduceMax": -inf, "ReduceMin": inf, "ReduceLogSumExp": -inf, "ReduceProd": 1}
"""The results of reductions of an empty axis."""
CHANGES_ELEMENTS = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")
"""The ops that change an element even if no axis is reduced."""


def _reduced_empty(call: Call, x: Value, axes: tuple[int, ...]) -> Value:
    number: Any = EMPTY_RESULTS[call.op]
    if x.dtype == "bool":
        number = number > 0
    elif not x.type.is_float:
        limits = np.iinfo(x.dtype)
        number = limits.max if number > 0 else limits.min
    axes = normal_axes(axes, x.type.rank)
    shape = reduced_shape(x.shape, axes, bool(call.attribute("keepdims", 1)))
    return gc.broadcast_to(call.constant(number, x.dtype), shape)


def _in_floats(function: Callable[..., Value]) -> Reduce:
    """Return a reduction with roots or logarithms that computes integers as floats."""

    def reduce(x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
        if x.type.is_float:
            return function(x, axes, keepdims)
        return gc.cast(function(gc.cast(x, "float64"), axes, keepdims), x.dtype)

    return reduce


def _softmax_axis(call: Call) -> int:
    """Return the axis of a softmax; before opset 13 all axes from it on are merged."""
    return int(call.attribute("axis", 1 if call.version < 13 else -1))


def _over_axis(function: Callable[[Value, int], Value]) -> Converter:
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
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "CumProd": _cumulative(gc.cumprod),
    "CumSum": _cumulative(gc.cumsum),
    "Expand": lambda call: gc.broadcast_to(
        call.value(0), broadcast(call.type(0).shape, call.dims(1))
    ),
    "Flatten": _flatten,
    "Hardmax": _hardmax,
    "LogSoftmax": _over_axis(gc.log_softmax),
    "Range": _range,
    "ReduceL1": _reduction(gc.l1_norm),
    "ReduceL2": _reduction(_in_floats(gc.l2_norm)),
    "ReduceLogSum": _reduction(_in_floats(lambda *given: gc.log(gc.sum(*given)))),
    "ReduceLogSumExp": _reduction(_in_floats(gc.logsumexp)),
    "ReduceMax": _reduction(gc.max),
    "ReduceMean": _reduction(_in_floats(gc.mean)),
    "ReduceMin": _reduction(gc.min),
    "ReduceProd": _reduction(gc.prod),
    "ReduceSum": _reduction(gc.sum),
    "ReduceSumSquare": _reduction(gc.sum_squares),
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": lambda call: dims_array([count(call.type(0).shape)]).reshape(()),
    "Slice": _slice,
    "Softmax": _over_axis(gc.softmax),
    "Split": _split,
    "Squeeze": _squeeze,
    "TopK": _top_k,
    "Transpose": lambda call: gc.transpose(call.value(0), call.attribute("perm")),
    "Unsqueeze": _unsqueeze,
}
