"""Constant folding at import: a node whose operands are all known is computed at once."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from graphc.base.work import spend_array, spend_bytes, spend_elements
from graphc.declare.net import Net
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import shape_at
from graphc.onnx.call import ITEM, Call, Result
from graphc.onnx.expand import expanded
from graphc.onnx.known import NotSupported, Operand, is_symbolic
from graphc.onnx.symbolic import SYMBOLIC
from graphc.ops.source import Input
from graphc.runtime.reference import evaluate
from graphc.view.profile.cost import op_flops

if TYPE_CHECKING:
    from graphc.onnx.scope import Scope

PRODUCTS = 8
"""The number of matrix-product operations that take the time of one other operation."""

Converter = Callable[[Call], Result]


def folded(call: Call, converter: Converter) -> Result:
    """Return the results of a node computed now."""
    symbolic = any(isinstance(o, np.ndarray) and is_symbolic(o) for o in call.operands)
    if symbolic and call.op in SYMBOLIC:
        spend_array(ITEM * _most(call))
        return SYMBOLIC[call.op](call)
    if symbolic:
        return converter(call)
    scratch = _scratch(call.scope)
    result = converter(_over(call, scratch))
    results: list[Operand] = (
        list(result) if isinstance(result, (list, tuple)) else [result]  # type: ignore[list-item]
    )
    if not any(isinstance(r, Value) for r in results):
        return result
    b = scratch.reading.net.builder
    return _evaluated(b, results)


def _most(call: Call) -> int:
    """Return the largest number of items that an op on shapes can produce or read."""
    arrays = [operand for operand in call.operands if isinstance(operand, np.ndarray)]
    if call.op in ("Concat", "Reshape", "Slice"):
        return sum(array.size for array in arrays)
    if call.op == "Gather":
        return prod(array.size for array in arrays)
    return prod(np.broadcast_shapes(*(array.shape for array in arrays)))


def _scratch(scope: Scope) -> Scope:
    from graphc.onnx.scope import Reading, Scope

    reading = scope.reading
    net = Net("constants")
    net.builder.locs = reading.net.builder.locs
    own = Reading(net, reading.file, reading.functions, as_written=True)
    scratch = Scope(own, scope.opsets, scope.prefix, scope.attributes, scope.depth)
    scratch.read = scope.read
    return scratch


def _over(call: Call, scope: Scope) -> Call:
    return Call(scope, call.op, call.version, call.operands, call.attributes, call.outputs)


def _evaluated(b: Builder, results: list[Operand]) -> list[Operand]:
    for value in results:
        if isinstance(value, Value):
            b.outputs[value.name] = value.name
    graph = expanded(b.graph(), train=False)  # the cost of ops is known, not that of layers
    if any(isinstance(node.op, Input) for node in graph):
        raise NotSupported("its constants depend on an input")
    spend_elements(sum(_numbers(graph, node) for node in graph))
    spend_bytes(sum(node.type.nbytes(1) for node in graph if node.inputs))
    values = evaluate(graph, {}, {}, 1)
    found = {name: np.asarray(values[node]) for name, node in graph.outputs.items()}
    return [found[r.name] if isinstance(r, Value) else r for r in results]


def _numbers(graph: Graph, node: Node) -> int:
    """Return the numbers computed for a node, products counted less since BLAS is faster."""
    operands = [graph[name].type for name in node.inputs]
    plain, products = op_flops(node.op, operands, node.type, 1)
    return prod(shape_at(node.type.shape, 1)) + plain + products // PRODUCTS
