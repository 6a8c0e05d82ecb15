"""Constant folding at import: a node whose operands are all known is computed at once.

Shapes that contain the batch dimension are arrays of objects, which follow the rules in SYMBOLIC.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from graphc.base.work import spend_array, spend_bytes, spend_elements
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array
from graphc.ir.tensor_type import Batch
from graphc.onnx.call import (
    ITEM,
    Binding,
    Call,
    Converter,
    NotSupported,
    Result,
    as_results,
    is_symbolic,
    plain_array,
)
from graphc.runtime.reference import evaluate
from passes.specialize import Specialize


def expanded(graph: Graph, train: bool) -> Graph:
    """Return the graph with its layers expanded, or the graph itself if it has none."""
    if not any(node.op.is_layer for node in graph):
        return graph
    return Specialize(train)(graph)


def _gather(call: Call) -> Array:
    found = np.take(call.array(0), call.array(1), axis=call.attribute("axis", 0))
    # Of one object np.take returns the object itself, not an array.
    return plain_array(found if isinstance(found, np.ndarray) else _single(found))


def _single(dim: Any) -> Array:
    array = np.empty((), object)
    array[()] = dim
    return array


def _slice(call: Call) -> Array:
    array = call.array(0)
    starts, ends = call.ints(1), call.ints(2)
    axes = call.ints(3) if call.has(3) else tuple(range(len(starts)))
    steps = call.ints(4) if call.has(4) else (1,) * len(starts)
    index: list[slice] = [slice(None)] * array.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = slice(start, end, step)
    return plain_array(array[tuple(index)])


def _concat(call: Call) -> Array:
    arrays = [call.array(i).astype(object) for i in range(len(call))]
    return np.concatenate(arrays, axis=call.required("axis"))


def _product(a: Any, b: Any) -> Any:
    return a * b


def _quotient(a: Any, b: Any) -> Any:
    if not isinstance(b, Batch):
        if isinstance(a, Batch) and b > 0 and a.factor % b == 0:
            return Batch(a.factor // b, a.power)
        if not isinstance(a, Batch):
            return a // b
    elif isinstance(a, Batch) and a.factor % b.factor == 0 and a.power >= b.power:
        factor, power = a.factor // b.factor, a.power - b.power
        return Batch(factor, power) if power else factor
    raise NotSupported(f"{a} is not divisible by {b}")


def _sum(a: Any, b: Any) -> Any:
    if isinstance(a, Batch) and isinstance(b, Batch) and a.power == b.power:
        return Batch(a.factor + b.factor, a.power)
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
    array = _single(reduce(_product, call.array(0).flat, 1))
    return array.reshape(1) if call.attribute("keepdims", 1) else array


SYMBOLIC: dict[str, Callable[[Call], Array]] = {
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Cast": lambda call: call.array(0),
    "Mul": _elementwise(_product),
    "Div": _elementwise(_quotient),
    "Add": _elementwise(_sum),
    "Equal": _equal,
    "Where": _where,
    "ReduceProd": _reduce_prod,
}
"""The rules for arrays of dimensions, by the name of the ONNX op."""

PRODUCTS = 8
"""The number of matrix-product operations that take the time of one other operation."""


def folded(call: Call, converter: Converter) -> Result:
    """Compute a node whose operands are all known; return its results as arrays."""
    symbolic = any(isinstance(o, np.ndarray) and is_symbolic(o) for o in call.operands)
    if symbolic and call.op in SYMBOLIC:
        spend_array(ITEM * _size_bound(call))
        return SYMBOLIC[call.op](call)
    if symbolic:
        return converter(call)
    scratch = call.scope.scratch()
    results = as_results(converter(replace(call, scope=scratch)))
    if not any(isinstance(result, Value) for result in results):
        return results
    return _evaluated(scratch.reading.net.builder, results)


def _size_bound(call: Call) -> int:
    """Return an upper bound of the elements that an op on shapes reads or produces."""
    arrays = [operand for operand in call.operands if isinstance(operand, np.ndarray)]
    if call.op in ("Concat", "Slice"):
        return sum(array.size for array in arrays)
    if call.op == "Gather":
        return prod(array.size for array in arrays)
    return prod(np.broadcast_shapes(*(array.shape for array in arrays)))


def _evaluated(b: Builder, results: Sequence[Binding]) -> list[Binding]:
    for value in results:
        if isinstance(value, Value):
            b.outputs[value.name] = value.name
    graph = expanded(b.graph(), train=False)  # the cost of ops is known, not that of layers
    if any(node.op.is_input for node in graph):
        raise NotSupported("its constants depend on an input")
    spend_elements(sum(_cost(graph, node) for node in graph))
    spend_bytes(sum(node.type.nbytes(1) for node in graph if node.inputs))
    values = evaluate(graph, {}, {}, 1)
    found = {name: np.asarray(values[node]) for name, node in graph.outputs.items()}
    return [found[r.name] if isinstance(r, Value) else r for r in results]


def _cost(graph: Graph, node: Node) -> int:
    """Return the cost of a node in elements; products cost less, since BLAS is fast."""
    operands = [graph[name].type for name in node.inputs]
    plain, products = node.op.flops(operands, node.type, 1)
    return node.type.size(1) + plain + products // PRODUCTS
