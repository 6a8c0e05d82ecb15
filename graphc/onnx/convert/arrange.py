"""Converters of ops that move elements: gathers, scatters, padding, triangles and blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc as gc
from graphc.base.work import spend_array
from graphc.ir.build import Value
from graphc.ir.op import Array
from graphc.ir.tensor_type import Dim
from graphc.onnx.call import Call, Converter, NotSupported, Operand, Weight, dtype_of
from graphc.ops.shape import as_dtype


def _from_front(call: Call, position: int, *sizes: Dim) -> Value:
    """Return indices into axes of these sizes, which may be negative, as indices from the front."""
    if not all(isinstance(size, int) for size in sizes):
        raise NotSupported("the batch dimension is indexed")
    # graphc itself writes no negative indices.
    if call.scope.reading.by_graphc:
        return call.value(position)
    size = sizes[0] if len(sizes) == 1 else np.array(sizes, np.int64)
    operand = call.operand(position)
    if isinstance(operand, np.ndarray):
        spend_array(operand.size)
        return call.constant(np.where(operand < 0, operand + size, operand).astype(np.int64))
    indices = as_dtype(call.value(position), "int64")
    negative = indices < 0
    from_end = indices + (call.constant(size) if isinstance(size, np.ndarray) else size)
    return gc.where(negative, from_end, indices)


def _reduction(call: Call) -> Any:
    """Return the reduction of a scatter; raise NotSupported for an unknown one."""
    reduction = call.attribute("reduction", "none")
    if reduction not in ("none", "add", "max", "min"):
        raise NotSupported(f"reduction={reduction!r}")
    return reduction


def _gather(call: Call) -> Operand:
    x = call.operand(0)
    rank = call.type(0).rank
    axis = call.attribute("axis", 0) % rank
    known = call.operand(1)
    if isinstance(x, Value | Weight) and isinstance(known, np.ndarray) and known.ndim == 0:
        size = call.type(0).shape[axis]
        if isinstance(size, int) and -size <= int(known) < size:
            return call.value(0)[(*(slice(None),) * axis, int(known) % size)]
    value = call.value(0)
    if call.scope.reading.by_graphc and isinstance(x, Weight) and axis == 0 and rank == 2:
        return gc.embedding(call.value(1), weight=value)
    return gc.gather(value, _from_front(call, 1, value.shape[axis]), axis)


def _gather_elements(call: Call) -> Value:
    x = call.value(0)
    axis = call.attribute("axis", 0) % x.type.rank
    return gc.gather_elements(x, _from_front(call, 1, x.shape[axis]), axis)


def _scatter_elements(call: Call) -> Value:
    x = call.value(0)
    axis = call.attribute("axis", 0) % x.type.rank
    indices = _from_front(call, 1, x.shape[axis])
    return gc.scatter_elements(x, indices, call.value(2), axis, reduction=_reduction(call))


def _gather_nd(call: Call) -> Value:
    x, batch = call.value(0), call.attribute("batch_dims", 0)
    depth = call.type(1).shape[-1]
    assert isinstance(depth, int)
    indices = _from_front(call, 1, *x.shape[batch : batch + depth])
    return gc.gather_nd(x, indices, batch)


def _scatter_nd(call: Call) -> Value:
    x = call.value(0)
    depth = call.type(1).shape[-1]
    assert isinstance(depth, int)
    indices = _from_front(call, 1, *x.shape[:depth])
    return gc.scatter_nd(x, indices, call.value(2), reduction=_reduction(call))


def _one_hot(call: Call) -> Value:
    """Return the on-value at each index, which may be negative, and the off-value at all others."""
    depth, axis = int(call.number(1)), call.attribute("axis", -1)
    indices = call.value(0)
    if call.scope.reading.by_graphc and axis == -1 and call.array(2).tolist() == [0, 1]:
        return gc.one_hot(indices, depth, dtype=call.type(2).dtype)
    # ONNX lists the off-value first.
    off, on = (call.value(2)[i] for i in (0, 1))
    rank = indices.type.rank + 1
    axis %= rank
    shape = [depth if i == axis else 1 for i in range(rank)]
    spend_array(depth)
    places = call.constant(np.arange(depth).reshape(shape), indices.dtype)
    column = gc.reshape(indices, (*indices.shape[:axis], 1, *indices.shape[axis:]))
    hit = gc.equal(gc.where(column < 0, column + depth, column), places)
    return gc.where(hit, on, off)


def _pad(call: Call) -> Value:
    x = call.value(0)
    if call.version < 11:
        # Opset 1 called them paddings.
        numbers = call.attribute("pads") or call.required("paddings")
        value = call.attribute("value", 0.0)
    else:
        numbers, value = call.ints(1), call.number(2, 0)
    axes = call.ints(3) if call.has(3) else range(x.type.rank)
    pairs = [(0, 0)] * x.type.rank
    for i, axis in enumerate(axes):
        pairs[axis % x.type.rank] = (int(numbers[i]), int(numbers[i + len(axes)]))
    cuts = tuple(slice(max(-a, 0) or None, min(b, 0) or None) for a, b in pairs)
    if any(cut != slice(None) for cut in cuts):  # negative pads
        x = x[cuts]
    around = [(max(a, 0), max(b, 0)) for a, b in pairs]
    mode = call.attribute("mode", "constant")
    if mode not in ("constant", "edge", "reflect", "wrap"):
        raise NotSupported(f"mode={mode!r}")
    return gc.pad(x, around, value, mode=mode)


def _eye_like(call: Call) -> Array:
    rows, columns = call.type(0).shape
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise NotSupported("its size depends on the batch")
    number = call.attribute("dtype")
    dtype = call.type(0).dtype if number is None else dtype_of(number)
    spend_array(rows * columns)
    return np.eye(rows, columns, call.attribute("k", 0), dtype)


def _image(x: Value) -> tuple[Dim, int, int, int]:
    n, c, h, w = x.shape
    if not (isinstance(c, int) and isinstance(h, int) and isinstance(w, int)):
        raise NotSupported("its size depends on the batch")
    return n, c, h, w


def _depth_to_space(call: Call) -> Value:
    x, block = call.value(0), call.required("blocksize")
    n, c, h, w = _image(x)
    deep = c // block**2
    if call.attribute("mode", "DCR") == "DCR":
        parts = gc.reshape(x, (n, block, block, deep, h, w))
        moved = gc.transpose(parts, (0, 3, 4, 1, 5, 2))
    else:
        parts = gc.reshape(x, (n, deep, block, block, h, w))
        moved = gc.transpose(parts, (0, 1, 4, 2, 5, 3))
    return gc.reshape(moved, (n, deep, h * block, w * block))


def _space_to_depth(call: Call) -> Value:
    x, block = call.value(0), call.required("blocksize")
    n, c, h, w = _image(x)
    parts = gc.reshape(x, (n, c, h // block, block, w // block, block))
    order = (0, 3, 5, 1, 2, 4) if call.attribute("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return gc.reshape(gc.transpose(parts, order), (n, c * block**2, h // block, w // block))


CONVERTERS: dict[str, Converter] = {
    "DepthToSpace": _depth_to_space,
    "EyeLike": _eye_like,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "SpaceToDepth": _space_to_depth,
    "Tile": lambda call: gc.tile(call.value(0), call.ints(1)),
    "Trilu": lambda call: (gc.triu if call.attribute("upper", 1) else gc.tril)(
        call.value(0), int(call.number(1, 0))
    ),
}
