"""Converters of ops that read and write by indices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import graphc as gc
from graphc.base.work import spend_array
from graphc.ir.build import Value
from graphc.ir.tensor_type import Dim
from graphc.onnx.call import Call, Result
from graphc.onnx.known import NotSupported, Operand, Weight


def _from_front(call: Call, position: int, size: Dim) -> Value:
    """Return indices that may be negative as indices from the front."""
    operand = call.operand(position)
    if not isinstance(size, int):
        raise NotSupported("the batch dimension is indexed")
    if call.scope.reading.own:
        return call.value(position)
    if isinstance(operand, np.ndarray):
        spend_array(operand.size)
        return call.constant(np.where(operand < 0, operand + size, operand).astype(np.int64))
    indices = gc.cast(call.value(position), "int64")
    return gc.where(indices < 0, indices + size, indices)


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
    if call.scope.reading.own and isinstance(x, Weight) and axis == 0 and rank == 2:
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
    reduction = call.attribute("reduction", "none")
    if reduction not in ("none", "add", "max", "min"):
        raise NotSupported(f"reduction={reduction!r}")
    return gc.scatter_elements(x, indices, call.value(2), axis, reduction=reduction)


def _all_from_front(call: Call, position: int, sizes: tuple[Dim, ...]) -> Value:
    """Return indices into several axes, which may be negative, as indices from the front."""
    if not all(isinstance(size, int) for size in sizes):
        raise NotSupported("the batch dimension is indexed")
    operand = call.operand(position)
    ends = np.array(sizes, np.int64)
    if isinstance(operand, np.ndarray):
        spend_array(operand.size)
        return call.constant(np.where(operand < 0, operand + ends, operand).astype(np.int64))
    indices = gc.cast(call.value(position), "int64")
    return gc.where(indices < 0, indices + call.constant(ends), indices)


def _gather_nd(call: Call) -> Value:
    x, batch = call.value(0), call.attribute("batch_dims", 0)
    depth = call.type(1).shape[-1]
    assert isinstance(depth, int)
    indices = _all_from_front(call, 1, x.shape[batch : batch + depth])
    return gc.gather_nd(x, indices, batch)


def _scatter_nd(call: Call) -> Value:
    x = call.value(0)
    depth = call.type(1).shape[-1]
    assert isinstance(depth, int)
    reduction = call.attribute("reduction", "none")
    if reduction not in ("none", "add", "max", "min"):
        raise NotSupported(f"reduction={reduction!r}")
    indices = _all_from_front(call, 1, x.shape[:depth])
    return gc.scatter_nd(x, indices, call.value(2), reduction=reduction)


def _one_hot(call: Call) -> Value:
    """Return 1 at each index, which may be negative, else 0; all 0 if it is out of range."""
    depth, axis = int(call.number(1)), call.attribute("axis", -1)
    indices = call.value(0)
    if call.scope.reading.own and axis == -1 and call.array(2).tolist() == [0, 1]:
        return gc.one_hot(indices, depth, dtype=call.type(2).dtype)
    off, on = (call.value(2)[i] for i in (0, 1))
    rank = indices.type.rank + 1
    axis %= rank
    shape = [depth if i == axis else 1 for i in range(rank)]
    spend_array(depth)
    places = call.constant(np.arange(depth).reshape(shape), indices.dtype)
    column = gc.reshape(indices, (*indices.shape[:axis], 1, *indices.shape[axis:]))
    hit = gc.equal(gc.where(column < 0, column + depth, column), places)
    return gc.where(hit, on, off)


CONVERTERS: dict[str, Callable[[Call], Result]] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
}
