"""Converters of ops that change the shape or order of the same numbers, or compute with shapes."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, isfinite

import numpy as np

import graphc as gc
from graphc.base.work import spend_array
from graphc.ir.build import Value
from graphc.ir.op import Array
from graphc.ir.tensor_type import Batch, Dim, broadcast, count
from graphc.onnx.call import Call, Converter, Result
from graphc.onnx.operands import NotSupported, Operand, Weight, dims_array, type_of


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
    """Return the operand with another shape; known numbers stay known."""
    if isinstance(x, Weight):
        return gc.reshape(call.scope.value(x), tuple(shape))
    if isinstance(x, np.ndarray):
        return x.reshape([dim for dim in shape if isinstance(dim, int)])
    same = x.shape == tuple(shape) and not call.scope.reading.own
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
    if call.scope.reading.own:
        return gc.concat(call.values(), axis)
    values = [value for value in call.values() if value.shape != (0,)]
    if len(values) < 2:
        return values[0] if values else call.value(0)
    return gc.concat(values, axis)


def axes_of(call: Call) -> tuple[int, ...] | None:
    """Return the axes of a node: an operand, in earlier opsets an attribute, or None."""
    if call.has(1):
        return call.ints(1)
    axes = call.attribute("axes")
    return None if axes is None else tuple(axes)


def _squeeze(call: Call) -> Operand:
    x = call.operand(0)
    shape = type_of(x).shape
    axes = axes_of(call)
    if axes is None:
        dropped = {i for i, dim in enumerate(shape) if dim == 1}
    else:
        dropped = {axis % len(shape) for axis in axes}
    if any(shape[axis] != 1 for axis in dropped):
        raise NotSupported("an axis that is squeezed has more than one element")
    return reshaped(call, x, [dim for i, dim in enumerate(shape) if i not in dropped])


def _unsqueeze(call: Call) -> Operand:
    x = call.operand(0)
    shape, axes = type_of(x).shape, axes_of(call) or ()
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


def _range(call: Call) -> Array:
    start, limit, delta = (call.number(i) for i in range(3))
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
    if isinstance(dim, Batch):
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
    """Return x[cuts], which may be empty."""
    for axis, cut in enumerate(cuts):
        dim = x.shape[axis]
        if isinstance(dim, int) and cut != slice(None) and not range(dim)[cut]:
            shape = list(x.shape)
            shape[axis] = 0
            return gc.broadcast_to(call.constant(np.zeros((1,) * len(shape), x.dtype)), shape)
    return x[tuple(cuts)]


def _split(call: Call) -> list[Value]:
    x = call.value(0)
    axis = call.attribute("axis", 0) % x.type.rank
    dim = x.shape[axis]
    if not isinstance(dim, int):
        raise NotSupported("the batch dimension is split")
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


CONVERTERS: dict[str, Converter] = {
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Expand": lambda call: gc.broadcast_to(
        call.value(0), broadcast(call.type(0).shape, call.dims(1))
    ),
    "Flatten": _flatten,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": lambda call: dims_array([count(call.type(0).shape)]).reshape(()),
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": lambda call: gc.transpose(call.value(0), call.attribute("perm")),
    "Unsqueeze": _unsqueeze,
}
