"""Converters of sequences of tensors, whose lengths are known at import, so no sequence remains."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import graphc as gc
from graphc.base.work import spend_nodes
from graphc.ir.build import Value
from graphc.ir.op import Array
from graphc.onnx.call import Call, Result
from graphc.onnx.convert.shape import reshaped, sliced
from graphc.onnx.known import NotSupported, Operand, Parts


def _construct(call: Call) -> Parts:
    return Parts(tuple(call.operand(i) for i in range(len(call))))


def _split(call: Call) -> Parts:
    """Split along an axis into single entries, parts of one size, or parts of given sizes."""
    x = call.value(0)
    axis = call.attribute("axis", 0) % x.type.rank
    dim = x.shape[axis]
    if not isinstance(dim, int):
        raise NotSupported("the batch dimension is split")
    single = not call.has(1)
    spend_nodes(dim if single or call.array(1).ndim else dim // max(int(call.array(1)), 1))
    sizes = (1,) * dim if single else _sizes(call.array(1), dim)
    before: list[slice] = [slice(None)] * axis
    found: list[Operand] = []
    for size, end in zip(sizes, np.cumsum(sizes), strict=True):
        part: Operand = sliced(call, x, [*before, slice(int(end) - size, int(end))])
        if single and not call.attribute("keepdims", 1):
            part = reshaped(call, call.scope.value(part), [*x.shape[:axis], *x.shape[axis + 1 :]])
        found.append(part)
    return Parts(tuple(found))


def _sizes(split: Array, dim: int) -> tuple[int, ...]:
    if split.ndim == 0:
        size = int(split)
        if size < 1:
            raise NotSupported(f"{dim} elements are split into parts of {size}")
        return tuple(min(size, dim - start) for start in range(0, dim, size))
    sizes = tuple(int(size) for size in split)
    if sum(sizes) != dim or min(sizes, default=0) < 0:
        raise NotSupported(f"{dim} elements are split into {sizes}")
    return sizes


def _place(call: Call, position: int, end: int) -> int:
    """Return a position from 0 to before `end`; a negative one counts from the sequence's end."""
    length = len(call.parts(0))
    place = int(call.number(position, end - 1))
    place += length if place < 0 else 0
    if not 0 <= place < end:
        raise NotSupported(f"entry {place} of a sequence of {length}")
    return place


def _at(call: Call) -> Operand:
    entries = call.parts(0)
    return entries[_place(call, 1, len(entries))]


def _insert(call: Call) -> Parts:
    """Insert an entry before a position, or after the last one."""
    entries = call.parts(0)
    place = _place(call, 2, len(entries) + 1)
    return Parts((*entries[:place], call.operand(1), *entries[place:]))


def _erase(call: Call) -> Parts:
    """Return the sequence without the entry at a position, or without the last one."""
    entries = call.parts(0)
    place = _place(call, 1, len(entries))
    return Parts((*entries[:place], *entries[place + 1 :]))


def _length(call: Call) -> Array:
    return np.array(len(call.parts(0)), np.int64)


def _concat(call: Call) -> Value:
    values = [call.scope.value(entry) for entry in call.parts(0)]
    axis = call.required("axis")
    return gc.stack(values, axis) if call.attribute("new_axis", 0) else gc.concat(values, axis)


CONVERTERS: dict[str, Callable[[Call], Result]] = {
    "ConcatFromSequence": _concat,
    "SequenceAt": _at,
    "SequenceConstruct": _construct,
    "SequenceEmpty": _construct,
    "SequenceErase": _erase,
    "SequenceInsert": _insert,
    "SequenceLength": _length,
    "SplitToSequence": _split,
}
