"""Computations of shapes that contain the batch dimension: arrays of objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.ir.op import Array
from graphc.ir.tensor_type import Batch
from graphc.onnx.call import Call
from graphc.onnx.known import NotSupported, plain_array


def _gather(call: Call) -> Array:
    found = np.take(call.array(0), call.array(1), axis=call.attribute("axis", 0))
    if isinstance(found, np.ndarray):
        return plain_array(found)
    single = np.empty((), object)  # np.take returned a bare object, not an array
    single[()] = found
    return plain_array(single)


def _slice(call: Call) -> Array:
    array = call.array(0)
    starts, ends = call.ints(1), call.ints(2)
    axes = call.ints(3) if call.has(3) else tuple(range(len(starts)))
    steps = call.ints(4) if call.has(4) else (1,) * len(starts)
    index: list[slice] = [slice(None)] * array.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = slice(start, end, step)
    return array[tuple(index)]


def _concat(call: Call) -> Array:
    arrays = [call.array(i).astype(object) for i in range(len(call))]
    return np.concatenate(arrays, axis=call.required("axis"))


def _axes(call: Call) -> tuple[int, ...] | None:
    if call.has(1):
        return call.ints(1)
    axes = call.attribute("axes")
    return None if axes is None else tuple(axes)


def _unsqueeze(call: Call) -> Array:
    return np.expand_dims(call.array(0), _axes(call) or ())


def _squeeze(call: Call) -> Array:
    return np.squeeze(call.array(0), _axes(call))


def _same(call: Call) -> Array:
    return call.array(0)


def _reshape(call: Call) -> Array:
    return call.array(0).reshape(call.ints(1))


def _product(a: Any, b: Any) -> Any:
    if isinstance(a, Batch) and isinstance(b, Batch):
        raise NotSupported("the batch dimension is multiplied by itself")
    return a * b


def _quotient(a: Any, b: Any) -> Any:
    if not isinstance(b, Batch):
        if isinstance(a, Batch) and b > 0 and a.factor % b == 0:
            return Batch(a.factor // b)
        if not isinstance(a, Batch):
            return a // b
    elif isinstance(a, Batch) and a.factor % b.factor == 0:
        return a.factor // b.factor
    raise NotSupported(f"{a} is not divisible by {b}")


def _sum(a: Any, b: Any) -> Any:
    if isinstance(a, Batch) and isinstance(b, Batch):
        return Batch(a.factor + b.factor)
    if isinstance(a, Batch) or isinstance(b, Batch):
        raise NotSupported(f"{a} and {b} are added: the batch dimension has no such part")
    return a + b


def _elementwise(function: Callable[[Any, Any], Any]) -> Callable[[Call], Array]:
    def on_each(call: Call) -> Array:
        pairs = np.broadcast(*(call.array(i).astype(object) for i in (0, 1)))
        array = np.empty(pairs.shape, object)
        array.reshape(-1)[:] = [function(a, b) for a, b in pairs]
        return plain_array(array)

    return on_each


def _equal(call: Call) -> Array:
    pairs = np.broadcast(call.array(0), call.array(1))
    return np.array([a == b for a, b in pairs], bool).reshape(pairs.shape)


def _where(call: Call) -> Array:
    return plain_array(np.where(call.array(0), call.array(1), call.array(2)).astype(object))


def _reduce_prod(call: Call) -> Array:
    array = np.empty((), object)
    array[()] = 1
    for item in call.array(0).reshape(-1):
        array[()] = _product(array[()], item)
    return array.reshape(1) if call.attribute("keepdims", 1) else array


SYMBOLIC: dict[str, Callable[[Call], Array]] = {
    "Gather": _gather,
    "Slice": lambda call: plain_array(_slice(call)),
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Identity": _same,
    "Cast": _same,
    "Reshape": _reshape,
    "Mul": _elementwise(_product),
    "Div": _elementwise(_quotient),
    "Add": _elementwise(_sum),
    "Equal": _equal,
    "Where": _where,
    "ReduceProd": _reduce_prod,
}
"""The computations by the name of the ONNX op."""
