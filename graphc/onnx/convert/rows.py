"""Converters of ops on the numbers of a batch's rows: what torch writes for `as_strided`.

A row's number is known only at run time, so these indices become no array and no value.  They are
followed to the gather that reads the flat rows with them, which takes the same part of each row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

import graphc as gc
from graphc.ir.build import Value
from graphc.ir.op import Array
from graphc.ir.tensor_type import N
from graphc.onnx.call import Call, NotSupported, RowIndices

Rule = Callable[[Call], RowIndices | Value]


def of_rows(call: Call) -> RowIndices | Value:
    """Convert a node that reads row indices; raise NotSupported if it is of another kind."""
    rule = RULES.get(call.op)
    if rule is None:
        raise NotSupported("it reads numbers of rows, which only an index may do")
    return rule(call)


def _both(call: Call) -> tuple[RowIndices, Array]:
    """Return the row indices and the known integers that an op joins, in either order."""
    for mine, other in ((0, 1), (1, 0)):
        indices = call.operands[mine]
        if isinstance(indices, RowIndices) and call.known(other):
            array = call.array(other)
            if array.dtype.kind == "i":
                return indices, array
    raise NotSupported("numbers of rows are joined with what is not known")


def _scaled(call: Call) -> RowIndices:
    indices, factor = _both(call)
    if factor.size != 1:
        raise NotSupported("numbers of rows are multiplied by several numbers")
    by = int(factor.reshape(-1)[0])
    return RowIndices(indices.step * by, indices.offsets * by)


def _moved(call: Call) -> RowIndices:
    indices, array = _both(call)
    rank = indices.offsets.ndim
    if array.ndim > rank and (array.ndim > rank + 1 or array.shape[0] != 1):
        raise NotSupported("numbers of rows meet an array with an axis before the batch")
    rest = array[0] if array.ndim > rank else array
    return replace(indices, offsets=indices.offsets + rest)


def _unsqueezed(call: Call) -> RowIndices:
    indices, axes = _given(call), call.ints(1)
    rank = indices.offsets.ndim + 1 + len(axes)
    places = tuple(axis % rank - 1 for axis in axes)
    if -1 in places:
        raise NotSupported("numbers of rows get an axis before the batch")
    return replace(indices, offsets=np.expand_dims(indices.offsets, places))


def _given(call: Call) -> RowIndices:
    indices = call.operands[0]
    assert isinstance(indices, RowIndices)
    return indices


def _gathered(call: Call) -> Value:
    """Return the same part of each row: `x` holds `step` entries for each on its first axis."""
    x, indices = call.value(0), call.operands[1]
    if not isinstance(indices, RowIndices) or call.attribute("axis", 0) % x.type.rank:
        raise NotSupported("numbers of rows index an axis that is not the first")
    step, offsets = indices.step, indices.offsets
    inside = offsets.size and offsets.min() >= 0 and offsets.max() < step
    if step < 1 or x.shape[0] != step * N or not inside:
        raise NotSupported("an index of a row leads into another row")
    rest = x.shape[1:]
    if np.array_equal(offsets.reshape(-1), np.arange(step)):
        return gc.reshape(x, (N, *offsets.shape, *rest))
    rows = gc.reshape(x, (N, step, *rest))
    return gc.gather(rows, call.constant(offsets, "int64"), 1)


RULES: dict[str, Rule] = {
    "Add": _moved,
    "Cast": _given,
    "Gather": _gathered,
    "Identity": _given,
    "Mul": _scaled,
    "Unsqueeze": _unsqueezed,
}
