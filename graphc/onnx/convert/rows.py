"""Converters of ops on the numbers of a batch's rows: torch writes them for `as_strided` and masks.

A row's number is known only at run time, so these indices become no array and no value.  They are
followed to the gather that reads rows with them, which takes the same part of each row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

import graphc as gc
from graphc.ir.build import Value
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ir.tensor_type import N
from graphc.onnx.call import Call, NotSupported, RowIndices, dims_array
from graphc.runtime.reference import evaluate

Rule = Callable[[Call], RowIndices | Value | Array]


def of_rows(call: Call) -> RowIndices | Value | Array:
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


def _largest(call: Call) -> RowIndices:
    """Return the larger integers, of which only the shape is known: torch reads no more."""
    return replace(_moved(call), step=np.array(np.nan))


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
    if -1 in places or indices.step.ndim:
        raise NotSupported("numbers of rows get an axis before the batch")
    return replace(indices, offsets=np.expand_dims(indices.offsets, places))


def _expanded(call: Call) -> RowIndices:
    indices, (first, *rest) = _given(call), call.dims(1)
    sizes = [dim for dim in rest if isinstance(dim, int)]
    if first not in (1, N) or len(sizes) < len(rest) or len(rest) < indices.offsets.ndim:
        raise NotSupported("numbers of rows are repeated along the batch")
    return replace(indices, offsets=np.broadcast_to(indices.offsets, sizes))


def _whole(call: Call) -> RowIndices:
    """Return all rows, which torch writes as a slice."""
    indices = _given(call)
    starts, ends, axes, steps = (call.ints(i) if call.has(i) else None for i in range(1, 5))
    whole = starts == (0,) and ends and ends[0] > 2**30
    if not whole or axes not in (None, (0,)) or steps not in (None, (1,)):
        raise NotSupported("a part of the numbers of rows")
    return indices


def _joined(call: Call) -> RowIndices:
    """Return tuples of numbers of rows, and of integers that are the same for each row."""
    parts = [_as_rows(call, i) for i in range(len(call))]
    shapes = {part.offsets.shape[:-1] for part in parts}
    if call.attribute("axis") not in (-1, parts[0].offsets.ndim) or len(shapes) > 1:
        raise NotSupported("numbers of rows are joined with others along another axis")
    steps = [np.broadcast_to(part.step, part.offsets.shape[-1:]) for part in parts]
    return RowIndices(np.concatenate(steps), np.concatenate([p.offsets for p in parts], -1))


def _as_rows(call: Call, position: int) -> RowIndices:
    """Return an operand of integers as row indices if each row has the same ones."""
    operand = call.operands[position]
    if isinstance(operand, RowIndices):
        return operand
    value = call.value(position)
    graph = value.builder.graph()
    behind = graph.upstream([value.name])
    nodes = [node for node in graph if node.name in behind]
    same = all(node.op.is_constant or node.op.name in SAME_IN_EACH_ROW for node in nodes)
    if not same or value.shape[:1] != (N,) or value.type.rank < 2:
        raise NotSupported("numbers of rows are joined with what is not known")
    needed = Graph(graph.name, nodes, outputs={"found": value.name})
    return RowIndices(np.array(0), np.asarray(evaluate(needed, {}, {}, 1)[value.name])[0])


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
    inside = offsets.size and offsets.min() >= 0 and np.all(offsets < step)
    if step.ndim or not step >= 1 or not inside or x.shape[0] != int(step) * N:
        raise NotSupported("an index of a row leads into another row")
    rest = x.shape[1:]
    if np.array_equal(offsets.reshape(-1), np.arange(int(step))):
        return gc.reshape(x, (N, *offsets.shape, *rest))
    rows = gc.reshape(x, (N, int(step), *rest))
    return gc.gather(rows, call.constant(offsets, "int64"), 1)


def _gathered_by_tuples(call: Call) -> Value:
    """Return entries of each row, at pairs of its number and an index that is the same in each."""
    x, indices = call.value(0), call.operands[1]
    pairs = isinstance(indices, RowIndices) and indices.offsets.shape[-1:] == (2,)
    if not pairs or call.attribute("batch_dims", 0) or x.type.rank < 2 or x.shape[0] != N:
        raise NotSupported("numbers of rows index otherwise than by pairs")
    assert isinstance(indices, RowIndices)
    row, other = indices.offsets[..., 0], indices.offsets[..., 1]
    if not np.array_equal(indices.step, [1, 0]) or row.any():
        raise NotSupported("an index of a row leads into another row")
    return gc.gather(x, call.constant(other, "int64"), 1)


SAME_IN_EACH_ROW = "broadcast_to", "reshape", "cast"
"""The ops that make values (N, ...) whose rows are equal of constants."""
RULES: dict[str, Rule] = {
    "Add": _moved,
    "Cast": _given,
    "Concat": _joined,
    "Expand": _expanded,
    "Gather": _gathered,
    "GatherND": _gathered_by_tuples,
    "Identity": _given,
    "Max": _largest,
    "Mul": _scaled,
    "Shape": lambda call: dims_array((N, *_given(call).offsets.shape)),
    "Slice": _whole,
    "Unsqueeze": _unsqueezed,
}
